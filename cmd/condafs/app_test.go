package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"condafs/bench"
	"condafs/control"
	"condafs/doctor"
	"condafs/fault"
)

// canned answers every request with fixed values, or with err.
type canned struct {
	asked []string // only ever one request at a time
	err   error
	bad   bool // there is damage
}

func (c *canned) As(control.Peer) control.API           { return c }
func (c *canned) SessionOwner(id string) (uint32, bool) { return uint32(os.Getuid()), id == "abc" }

func (c *canned) note(s string) error { c.asked = append(c.asked, s); return c.err }

var day = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func (c *canned) Status(context.Context) (*control.Status, error) {
	return &control.Status{Version: "v1", PID: 7, Started: day, MountPoint: "/m", Store: "/s", Owner: 0, Head: 9, Packages: 2, Archives: 1,
		Blobs: 12, StoredBytes: 1500, LogicalBytes: 3_000_000, QuarantinedBytes: 5,
		Scrub: control.Scrub{Rate: 1e7, Every: 7 * 86400, Running: true, Pass: &control.ScrubPass{Started: day, Bytes: 1000, Blobs: 8, Total: 2000, Found: 3, Mended: 3},
			Last: &control.ScrubPass{Started: day, Finished: day, Bytes: 1500, Blobs: 12}},
		Quarantine: []control.Quarantine{{ID: "q1", Time: day, Path: "pkgs/bad-1-0", Reason: "bin/x has another SHA-256", Bytes: 5}}}, c.note("status")
}
func (c *canned) Activity(context.Context) (*control.Activity, error) {
	return &control.Activity{Since: day, LatencyBounds: []float64{0.001, 0.1}, Published: []control.PublishedCount{{Kind: "package", Trust: "verified", Units: 4, Bytes: 4000}},
		Requests: []control.RequestCount{{Op: "lookup", Count: 10, Seconds: 0.5, Buckets: []uint64{8, 2, 0}}},
		Errors:   []control.ErrnoCount{}, Packages: []control.PackageCount{}, FreeBytes: 1 << 30, SizeBytes: 4 << 30}, c.note("activity")
}
func (c *canned) Sessions(context.Context) ([]control.Session, error) {
	return []control.Session{{ID: "abc", Label: "ci", Explicit: true, Members: []int{3, 4}, Started: day, Base: 8, Dirty: true, OverlayBytes: 2000, State: "active"}}, c.note("sessions")
}
func (c *canned) Start(_ context.Context, r control.StartRequest) (*control.Started, error) {
	return &control.Started{ID: "abc"}, c.note("start " + r.Label)
}
func (c *canned) End(context.Context, string, control.EndRequest) (*control.Report, error) {
	return report, c.note("end")
}

var report = &control.Report{Head: 10,
	Committed: []control.Committed{{Path: "pkgs/a-1-0", Kind: "package", Trust: "verified"}, {Path: "pkgs/b-1-0", Kind: "package", Trust: "verified", Deleted: true}},
	Pending:   []control.Dropped{}, Dropped: []control.Dropped{{Path: "pkgs/c-1-0", Why: "not complete"}}, Quarantined: []control.Dropped{}}

func (c *canned) Commit(_ context.Context, id string) (*control.Report, error) {
	return report, c.note("commit " + id)
}
func (c *canned) Discard(_ context.Context, id string) error { return c.note("discard " + id) }
func (c *canned) Packages(context.Context) ([]control.Package, error) {
	return []control.Package{pkg, {Name: "evil\x1b[31m-1-0", Directory: "rattler/pkgs", Trust: "opaque"}}, c.note("ls")
}

var pkg = control.Package{Name: "a-1-0", Directory: "pkgs", Trust: "verified", Shared: true, Extracted: true, Size: 1234567, SHA256: "ab",
	Archive: &control.Archive{FileName: "a-1-0.conda", Size: 999, SHA256: "ab", Trust: "verified"}}

func (c *canned) Package(_ context.Context, name string) (*control.PackageFiles, error) {
	return &control.PackageFiles{Package: pkg, Entries: []control.File{
		{Path: "bin", Type: "directory", Mode: "0755"}, {Path: "bin/a", Type: "file", Mode: "0755", Size: 12, Blake3: "cd"}, {Path: "bin/l", Type: "symlink", Mode: "0777", Target: "a"},
	}}, c.note("ls " + name)
}
func (c *canned) Log(_ context.Context, limit int) ([]control.Commit, error) {
	return []control.Commit{{Seq: 9, Time: day, Session: "abc", Label: "ci", Command: "conda install a", What: []string{"+ a-1-0 (verified)"}}}, c.note("log")
}
func (c *canned) Verify(_ context.Context, r control.VerifyRequest, _ control.ProgressFunc) (*control.VerifyReport, error) {
	v := &control.VerifyReport{Blobs: 12, Bytes: 1500, Full: r.Full, Problems: []control.Problem{}}
	if c.bad {
		v.Problems = append(v.Problems, control.Problem{Kind: "content", Digest: "cd", Detail: "its bytes are others", Paths: []string{"shared/pkgs/a-1-0/bin/a"}})
	}
	return v, c.note("verify")
}
func (c *canned) Repair(_ context.Context, r control.RepairRequest, _ control.ProgressFunc) (*control.RepairReport, error) {
	v := control.VerifyReport{Full: r.Full, Problems: []control.Problem{{Kind: "content", File: "objects/ab/cd", Detail: "bad", Fixed: "mended", Paths: []string{}}}}
	return &control.RepairReport{VerifyReport: v, Removed: []string{"shared/pkgs/x-1-0"}}, c.note("repair")
}
func (c *canned) Scrub(context.Context, control.ScrubRequest, control.ProgressFunc) (*control.ScrubPass, error) {
	p := &control.ScrubPass{Started: day, Finished: day, Blobs: 12, Bytes: 1500}
	if c.bad {
		p.Found, p.Lost, p.Removed = 1, 1, 2
	}
	return p, c.note("scrub")
}
func (c *canned) GC(_ context.Context, r control.GCRequest, _ control.ProgressFunc) (*control.GCReport, error) {
	return &control.GCReport{DryRun: r.DryRun, Blobs: 1, Bytes: 2000, KeptBlobs: 11,
		Removed: []control.RemovedPackage{{Path: "shared/pkgs/old-1-0", Bytes: 3000, Used: day}}, RemovedBytes: 3000, Linked: 2, Over: 5000, NoTimes: true}, c.note("gc")
}
func (c *canned) Import(_ context.Context, r control.ImportRequest, _ control.ProgressFunc) (*control.ImportReport, error) {
	return &control.ImportReport{Imported: []control.Committed{{Path: "pkgs/a-1-0", Kind: "package", Trust: "verified"}}, Present: 3,
		Rejected: []control.Dropped{{Path: "bad-1-0", Why: "bin/x is missing"}}, Skipped: []control.Dropped{}, Bytes: 10}, c.note("import " + r.Dir)
}
func (c *canned) Export(_ context.Context, r control.ExportRequest, _ control.ProgressFunc) (*control.ExportReport, error) {
	e := &control.ExportReport{Exported: []string{"a-1-0"}, Rejected: []control.Dropped{}}
	if c.bad {
		e.Rejected = append(e.Rejected, control.Dropped{Path: "b-1-0", Why: "something else is there"})
	}
	return e, c.note("export " + r.Dir + " " + strings.Join(r.Names, ","))
}
func (c *canned) Upgrade(_ context.Context, r control.UpgradeRequest, _ control.ProgressFunc) (*control.Upgrade, error) {
	u := &control.Upgrade{ID: "u1", State: control.UpgradeBegun, From: "v1", To: "v2", PID: 7, MountPoint: "/m", Time: day, Sessions: 1, Files: 3}
	if r.DryRun {
		u.ID, u.State = "", control.UpgradeRehearsed
	}
	return u, c.note("upgrade " + r.Binary)
}
func (c *canned) Upgraded(_ context.Context, id string) (*control.Upgrade, error) {
	u := &control.Upgrade{ID: id, State: control.UpgradeDone, From: "v1", To: "v2", PID: 7, MountPoint: "/m", Time: day, PauseMS: 89, Sessions: 1, Files: 3}
	if c.bad {
		u.State, u.Why = control.UpgradeFailed, "no such luck"
	}
	return u, c.note("upgraded " + id)
}
func (c *canned) Stop(context.Context, control.StopRequest, control.ProgressFunc) (*control.Stopped, error) {
	return &control.Stopped{}, c.note("stop")
}

// commandLineOf runs one command line against the backend, as within `condafs run`.
func commandLineOf(t *testing.T, c *canned, args ...string) (code int, out, err string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "d", "s")
	l, lerr := control.Listen(socket, false)
	if lerr != nil {
		t.Fatal(lerr)
	}
	s := control.NewServer(c, uint32(os.Getuid()), true, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	var o, e bytes.Buffer
	env := map[string]string{envMount: "/m", envSocket: socket, envSession: "abc", "HOME": "/nonexistent"}
	a := &app{in: strings.NewReader(""), out: &o, err: &e, getenv: func(k string) string { return env[k] }}
	code = a.main(args)
	if cerr := s.Close(); cerr != nil {
		t.Error(cerr)
	}
	if serr := <-done; serr != nil {
		t.Error(serr)
	}
	return code, o.String(), e.String()
}

func TestCommands(t *testing.T) {
	for _, c := range []struct {
		args  string
		asked string
		out   []string // parts of what it prints
	}{
		{"status", "status", []string{"pid 7, v1", "/m", "2 extracted, 1 archive\n", "1.5 kB on disk in 12 blobs, for 3.0 MB of content", "q1", "pkgs/bad-1-0: bin/x has another SHA-256",
			"10 MB a second, every 7 days; since ", ": 1.0 kB of 2.0 kB, 3 problems found: 3 mended, 0 lost, 0 left\n", "last ended ", ": 1.5 kB in 12 blobs, nothing found\n"}},
		{"top --interval 100ms", "status;activity;sessions;log;status;activity;sessions;log", []string{"/m  v1, pid 7", "1.5 kB on disk, for 3.0 MB of content; 2 packages, 1 archive",
			"1.1 GB of 4.3 GB free", "requests  none", "4 published (4.0 kB)", "1 in quarantine (5 B); scrub: 50 % read", "abc", "2.0 kB", "ci", "+ a-1-0 (verified)"}},
		{"scrub", "scrub", []string{"1.5 kB in 12 blobs, nothing found\n"}},
		{"sessions", "sessions", []string{"abc", "ci", "3,4", "2.0 kB"}},
		{"commit", "commit abc", []string{"+ pkgs/a-1-0 (package, verified)\n", "- pkgs/b-1-0", "dropped: pkgs/c-1-0: not complete"}},
		{"commit abc", "commit abc", []string{"+ pkgs/a-1-0"}},
		{"discard abc", "discard abc", []string{"session abc is discarded"}},
		{"ls", "ls", []string{"a-1-0", "verified", "everybody", "1.2 MB", "999 B", `rattler/pkgs/evil\x1b[31m-1-0`}},
		{"ls a-1-0", "ls a-1-0", []string{"0755", "bin/\n", "bin/l -> a"}},
		{"log", "log", []string{"9  ", "ci  conda install a\n    + a-1-0 (verified)\n"}},
		{"repair --full", "repair", []string{"content: objects/ab/cd: bad: mended", "removed: shared/pkgs/x-1-0", "1 problem found, 0 left"}},
		{"verify --full", "verify", []string{"12 blobs (1.5 kB) checked by content: all is well"}},
		{"gc", "gc", []string{"freed 2.0 kB in 1 blob and 0 trees; 0 B in 11 blobs stay"}},
		{"gc --dry-run", "gc", []string{"would free 2.0 kB"}},
		{"gc --max-size 1GB --max-age 30d", "gc", []string{"removed shared/pkgs/old-1-0 (3.0 kB), not used since 2026-11-24\n", "removed 1 package (3.0 kB, before sharing of equal content); 2 packages that environments have links to stay\n",
			"5.0 kB are above the limits", "notes no use (noatime)"}},
		{"import /d", "import /d", []string{"rejected: bad-1-0: bin/x is missing\n", "imported 1 thing (10 B): 1 verified, 0 consistent; 3 there already, 1 rejected"}},
		{"export /d --package a-1-0 --package b-1-0", "export /d a-1-0,b-1-0", []string{"exported 1 thing"}},
		{"upgrade --binary /b", "upgrade /b;upgraded u1", []string{"v2 has taken over /m from v1 (pid 7), with 1 session, 3 open files; the mount did not answer for 89 ms\n"}},
		{"upgrade --binary /b --dry-run", "upgrade /b", []string{"v2 could take over /m from v1 (pid 7), with 1 session, 3 open files\n"}},
		{"version", "", []string{"condafs "}},
	} {
		t.Run(c.args, func(t *testing.T) {
			b := &canned{}
			code, out, err := commandLineOf(t, b, strings.Fields(c.args)...)
			if code != 0 || err != "" {
				t.Fatalf("exit status %d: %s", code, err)
			}
			if got := strings.Join(b.asked, ";"); got != c.asked {
				t.Errorf("asked %q, want %q", got, c.asked)
			}
			for _, part := range c.out {
				if !strings.Contains(out, part) {
					t.Errorf("no %q in\n%s", part, out)
				}
			}
			if strings.ContainsRune(out, '\x1b') {
				t.Errorf("a name plays with the terminal: %q", out)
			}
			code, out, err = commandLineOf(t, &canned{}, append(strings.Fields(c.args), "--json")...)
			if code != 0 || err != "" || !json.Valid([]byte(out)) || strings.Contains(out, ": null") {
				t.Errorf("--json: exit status %d, %s, %s", code, err, out)
			}
		})
	}
}

func TestExitStatus(t *testing.T) {
	failing := func(k fault.Kind) *canned {
		return &canned{err: fault.New("do", "it", k, errors.New("because\nof this")).WithHint("help yourself")}
	}
	for _, c := range []struct {
		backend *canned
		args    string
		code    int
		err     string
	}{
		{failing(fault.Full), "status", 1, "condafs: do it: because | of this; help yourself\n"},
		{failing(fault.Usage), "status", 2, ""},
		{failing(fault.Corrupt), "verify", 3, ""},
		{failing(fault.NotMounted), "commit", 4, ""},
		{&canned{bad: true}, "verify", 3, "condafs: verify: 1 problem found; `condafs repair` mends what can be mended\n"},
		{&canned{bad: true}, "scrub", 3, "condafs: scrub: the content of 1 file is lost; clients fetch it again\n"},
		{&canned{bad: true}, "export /d", 1, "condafs: export to /d: 1 thing could not be written\n"},
		{&canned{bad: true}, "upgrade --binary /b", 1, "condafs: upgrade /m: no such luck; the old version goes on: v1\n"},
		{failing(fault.Version), "upgrade --binary /b", 1, ""},
		{&canned{}, "import --strict /d", 3, "condafs: import /d: 1 thing did not hold\n"},
		{&canned{}, "import", 2, ""},
		{&canned{}, "bogus", 2, "condafs: unknown command \"bogus\"; see `condafs --help`\n"},
		{&canned{}, "stauts", 2, "condafs: unknown command \"stauts\"; did you mean status?; see `condafs --help`\n"},
		{&canned{}, "status --bogus", 2, "condafs: unknown flag: --bogus; see `condafs status --help`\n"},
		{&canned{}, "ls --store /a --mount /b", 2, "condafs: --mount and --store exclude each other\n"},
		{&canned{}, "ls ..", 2, ""},
		{&canned{}, "discard nobody", 1, ""},
		{&canned{}, "run --on-failure x -- true", 2, ""},
		{&canned{}, "run --namespace x -- true", 2, ""},
		{&canned{}, "run --label x -- true", 2, "condafs: run: --label is for a new session, and this one joins abc; add --new\n"},
		{&canned{}, "mount --log-format x /m", 2, ""},
		{&canned{}, "mount -o store= /m", 2, ""},
		{&canned{}, "mount --scrub 0 /m", 2, ""},
		{&canned{}, "mount --scrub slow /m", 2, ""},
		{&canned{}, "mount -o scrub_every=0d /m", 2, "condafs: mount: --scrub-every \"0d\": it needs a time, as in 12h, 2d or 4w\n"},
		{&canned{}, "mount --store /a /nonexistent/m", 1, ""},
		{&canned{}, "umount /nonexistent/m", 4, ""},
		{&canned{}, "verify --store /nonexistent", 1, "condafs: open store /nonexistent: no store is there; name one with --store, or a running daemon's mount with --mount\n"},
	} {
		code, _, err := commandLineOf(t, c.backend, strings.Fields(c.args)...)
		if code != c.code || (c.err != "" && err != c.err) {
			t.Errorf("%s: %d %q, want %d %q", c.args, code, err, c.code, c.err)
		}
		if strings.Count(err, "\n") != 1 || !strings.HasPrefix(err, "condafs: ") {
			t.Errorf("%s: not one clear line: %q", c.args, err)
		}
	}
}

func TestCompletion(t *testing.T) {
	for args, want := range map[string]string{
		"discard ":           "abc\tci active\n",
		"ls a":               "a-1-0\n",
		"run --on-failure k": "keep-units\n",
	} {
		code, out, err := commandLineOf(t, &canned{}, append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: %d %q %q", args, code, out, err)
		}
	}
}

func TestHelpHasExamples(t *testing.T) {
	a := &app{getenv: os.Getenv}
	for _, c := range a.root().Commands() {
		if c.Runnable() && !c.Hidden && c.Name() != "version" && c.Example == "" {
			t.Errorf("%s has no example", c.Name())
		}
		if c.Short == "" && !c.Hidden {
			t.Errorf("%s says nothing about itself", c.Name())
		}
	}
}

// TestJSONTopic checks that the documented shapes name every field.
func TestJSONTopic(t *testing.T) {
	text := jsonTopic().Long
	for _, v := range []any{
		Mounted{Log: "x"}, control.Stopped{}, control.Session{Label: "x", Command: "x", Ephemeral: true}, report, Discarded{}, Configuration{Settings: []Setting{{Where: "x"}}}, SetUp{Steps: []SetUpStep{{}}, Imported: []ImportedOf{{}}}, Diagnosis{Findings: []doctor.Finding{{Mend: "x"}}},
		control.Status{MountPoint: "x", Quarantine: []control.Quarantine{{}}}, pkg, control.File{Blake3: "x", Target: "x"}, control.PackageFiles{},
		control.Commit{Label: "x", Command: "x"}, control.VerifyReport{Problems: []control.Problem{{Digest: "x", File: "x", Detail: "x", Quarantined: "x"}}},
		control.RepairReport{VerifyReport: control.VerifyReport{Problems: []control.Problem{{Fixed: "x"}}}}, control.RebuildReport{Aside: "x"}, control.GCReport{Removed: []control.RemovedPackage{{}}}, control.ImportReport{},
		control.Scrub{Next: day, Error: "x", Pass: &control.ScrubPass{Finished: day, Total: 1, Problems: []control.Problem{{}}}}, control.ExportReport{}, Version{},
		Top{Activity: &control.Activity{
			Requests: []control.RequestCount{{}}, Errors: []control.ErrnoCount{{}}, Published: []control.PublishedCount{{}},
			Packages: []control.PackageCount{{}}, GC: control.GCCount{Last: day},
		}},
		bench.Report{Figures: []bench.Figure{{}}}, bench.StoreReport{Stores: []bench.StoreFigure{{}}},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var any any
		if err := json.Unmarshal(b, &any); err != nil {
			t.Fatal(err)
		}
		eachKey(any, func(key string) {
			if !strings.Contains(text, key) {
				t.Errorf("%T has %q, which `condafs help json` does not", v, key)
			}
		})
	}
}

func eachKey(v any, f func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for k, w := range v {
			f(k)
			eachKey(w, f)
		}
	case []any:
		for _, w := range v {
			eachKey(w, f)
		}
	}
}
