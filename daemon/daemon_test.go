package daemon

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"condafs/conda"
	"condafs/conda/condatest"
	"condafs/control"
	"condafs/cow"
	"condafs/fault"
	"condafs/index"
	"condafs/transfer"
)

func TestHolders(t *testing.T) {
	proc := t.TempDir()
	link := func(to, name string) {
		t.Helper()
		at := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, at); err != nil {
			t.Fatal(err)
		}
	}
	link("/m/.sessions/abc", "10/cwd")
	link("/", "11/cwd")
	link("/m/pkgs/x", "11/fd/7")
	link("/mother", "12/cwd")
	link("/m", "13/map_files/1-2")
	link("/m", "self/cwd")
	if err := os.WriteFile(filepath.Join(proc, "10", "comm"), []byte("ev\x1bil\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range holders(proc, "/m") {
		got = append(got, u.String())
	}
	if want := []string{"pid 10 (evil)", "pid 11", "pid 13"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if l := holders(filepath.Join(proc, "none"), "/m"); len(l) != 0 {
		t.Errorf("got %v", l)
	}
}

func TestDescendants(t *testing.T) {
	proc := t.TempDir()
	for name, list := range map[string]string{"1/task/1": "2 3 ", "1/task/9": "4", "3/task/3": "5 1", "5/task/5": ""} {
		writeFile(t, filepath.Join(proc, name, "children"), list)
	}
	got := descendants(proc, 1)
	slices.Sort(got)
	if !slices.Equal(got, []int{2, 3, 4, 5}) {
		t.Errorf("got %v", got)
	}
	if l := descendants(proc, 77); len(l) != 0 {
		t.Errorf("got %v", l)
	}
}

func TestBusyNamesAFew(t *testing.T) {
	d := &daemon{config: Config{Settings: Settings{MountPoint: "/m"}}}
	var l []user
	for i := range 20 {
		l = append(l, user{pid: i + 1})
	}
	err := d.busy(l)
	if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "pid 8, and 12 more; ") {
		t.Errorf("got %v", err)
	}
	if err := d.busy(nil); err.Error() != "umount /m: it is in use; end them first, or use --lazy" {
		t.Errorf("got %v", err)
	}
}

func TestCheckApart(t *testing.T) {
	for _, c := range []struct {
		store, mount string
		ok           bool
	}{
		{"/a", "/b", true}, {"/a", "/a", false}, {"/a/b", "/a", false}, {"/a", "/a/b", false}, {"/ab", "/a", true}, {"/a/..b", "/a", false},
	} {
		if err := checkApart(c.store, c.mount); (err == nil) != c.ok {
			t.Errorf("%s and %s: %v", c.store, c.mount, err)
		}
	}
}

func TestInside(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"real/sub", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"real": true, "real/sub": true, "link/sub": true, "link/sub/not/yet": true, "other": false, "other/not/yet": false, "real2": false, "": false,
	} {
		got, err := inside(filepath.Join(dir, path), filepath.Join(dir, "real"))
		if err != nil || got != want {
			t.Errorf("%q: %v %v", path, got, err)
		}
	}
}

// direct opens a new store without a daemon.
func direct(t *testing.T) *Direct {
	t.Helper()
	d, err := OpenDirect(filepath.Join(t.TempDir(), "s"), "v", true, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestWithoutADaemon(t *testing.T) {
	d := direct(t)
	st, err := d.Status(t.Context())
	if err != nil || st.PID != 0 || st.Quarantine == nil {
		t.Errorf("%+v %v", st, err)
	}
	if l, err := d.Sessions(t.Context()); err != nil || l == nil || len(l) != 0 {
		t.Errorf("%v %v", l, err)
	}
	for name, f := range map[string]func() error{
		"start":   func() error { _, err := d.Start(t.Context(), control.StartRequest{}); return err },
		"end":     func() error { _, err := d.End(t.Context(), "x", control.EndRequest{}); return err },
		"commit":  func() error { _, err := d.Commit(t.Context(), "x"); return err },
		"discard": func() error { return d.Discard(t.Context(), "x") },
		"stop":    func() error { _, err := d.Stop(t.Context(), control.StopRequest{}, nil); return err },
	} {
		if err := f(); !fault.Is(err, fault.NotMounted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := OpenDirect(d.store.Dir(), "v", false, slog.New(slog.DiscardHandler)); !fault.Is(err, fault.Busy) {
		t.Errorf("a second one: %v", err)
	}
	if _, err := OpenDirect(filepath.Join(t.TempDir(), "none"), "v", false, slog.New(slog.DiscardHandler)); !fault.Is(err, fault.NotFound) {
		t.Errorf("none: %v", err)
	}
}

// TestWhoSeesWhat lists a head with things of two users, as each of them.
func TestWhoSeesWhat(t *testing.T) {
	d := direct(t)
	put := func(name string, uid uint32, archive bool) {
		t.Helper()
		dir := t.TempDir()
		p := condatest.Package{Name: name, Version: "1", Build: "0", Files: []condatest.File{{Path: "x", Body: name}}}
		b := p.Conda()
		for _, f := range p.All() {
			writeFile(t, filepath.Join(dir, p.Dist(), f.Path), f.Body)
		}
		writeFile(t, filepath.Join(dir, p.Dist(), conda.CompletionMarker), p.Record(p.Dist()+".conda", b))
		if archive {
			writeFile(t, filepath.Join(dir, p.Dist()+".conda"), string(b))
		}
		r, err := transfer.Import(t.Context(), d.store, transfer.ImportOptions{Dir: dir, UID: uid, Spaces: transfer.Spaces{Shared: cow.SharedSpace, Private: cow.PrivateSpace(uid)}})
		if err != nil || len(r.Rejected) > 0 {
			t.Fatalf("%+v %v", r, err)
		}
	}
	put("verified", 1000, true)
	put("own", 1000, false)
	put("others", 2000, false)
	if err := d.store.AddQuarantine(index.QuarantineRecord{ID: "q", Path: "pkgs/bad-1-0", UID: 2000, Bytes: 7}); err != nil {
		t.Fatal(err)
	}

	as := func(uid uint32) *api {
		return &api{store: d.store, peer: control.Peer{UID: uid}, all: uid == 0, owner: 0}
	}
	for uid, want := range map[uint32]string{
		0:    "others-1-0 own-1-0 verified-1-0",
		1000: "own-1-0 verified-1-0",
		2000: "others-1-0 verified-1-0",
		3000: "verified-1-0",
	} {
		l, err := as(uid).Packages(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range l {
			names = append(names, p.Name)
			if p.Shared != (p.Name == "verified-1-0") || (p.Archive != nil) != p.Shared {
				t.Errorf("%+v", p)
			}
		}
		log, err := as(uid).Log(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		imports := 0
		for _, c := range log {
			if len(c.What) > 0 && c.Label == "import" {
				imports++
			}
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("uid %d sees %q, want %q", uid, got, want)
		}
		if wantLog := map[uint32]bool{0: true, 1000: true, 2000: true}[uid]; (imports > 0) != wantLog {
			t.Errorf("uid %d sees %d imports in the log", uid, imports)
		}
		st, err := as(uid).Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if sees := len(st.Quarantine) == 1; sees != (uid == 0 || uid == 2000) {
			t.Errorf("uid %d sees the quarantine %+v", uid, st.Quarantine)
		}
	}
	if _, err := as(3000).Package(t.Context(), "own-1-0"); !fault.Is(err, fault.NotFound) {
		t.Errorf("somebody else's package: %v", err)
	}
	p, err := as(1000).Package(t.Context(), "own-1-0")
	if err != nil || !slices.ContainsFunc(p.Entries, func(f control.File) bool { return f.Path == "x" && f.Type == "file" && f.Size == 3 }) {
		t.Errorf("%+v %v", p, err)
	}
	if _, err := as(1000).Package(t.Context(), "own-2-0"); err == nil || !strings.Contains(err.Error(), "own-1-0") {
		t.Errorf("another version: %v", err)
	}
}

func writeFile(t *testing.T, name, body string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestPackagesOfChannels lists what newer mambas keep in a directory of the channel.
func TestPackagesOfChannels(t *testing.T) {
	d := direct(t)
	const dir = "pkgs/https/example.org/main/linux-64"
	hold := d.store.NewHold()
	defer hold.Release()
	sums, err := d.store.PutBlob(hold, strings.NewReader("bytes"), 0)
	if err != nil {
		t.Fatal(err)
	}
	file := index.Entry{Kind: index.KindFile, Digest: sums.Blake3, Size: sums.Size}
	_, err = d.store.Update(t.Context(), index.CommitInfo{}, func(tx *index.Tx) error {
		tree, err := index.NewTreeBuilder(index.TreeEntry{Kind: index.KindDir, Mode: 0o755}).Build()
		if err != nil {
			return err
		}
		digest, err := tx.PutTree(tree)
		if err != nil {
			return err
		}
		shared := cow.SharedSpace + "/"
		return errors.Join(
			tx.Put(shared+dir+"/a-1-0", index.Entry{Kind: index.KindTree, Digest: digest, Trust: uint8(conda.TrustVerified)}),
			tx.Put(shared+dir+"/a-1-0.conda", file),
			tx.Put(shared+dir+"/urls.txt", file),
			tx.Put(shared+"pkgs/cache/b-1-0.conda", file),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Packages(t.Context())
	if err != nil || len(l) != 1 || l[0].Name != "a-1-0" || l[0].Directory != dir || !l[0].Extracted || l[0].Archive == nil {
		t.Errorf("%+v %v", l, err)
	}
	if st, err := d.Status(t.Context()); err != nil || st.Archives != 1 || st.Packages != 1 {
		t.Errorf("%+v %v", st, err)
	}
}
