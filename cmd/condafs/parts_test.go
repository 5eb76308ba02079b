package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"condafs/control"
	"condafs/cow"
	"condafs/fault"
	"condafs/trim"
)

func TestLinkedSession(t *testing.T) {
	for to, want := range map[string]string{
		".sessions/abc/pkgs": "abc", "/m/.sessions/abc/pkgs": "abc", "/other/.sessions/abc/pkgs": "", "pkgs": "", "": "", "../x": "",
	} {
		if got := linkedSession("/m", to); got != want {
			t.Errorf("%q leads to %q, want %q", to, got, want)
		}
	}
}

func TestSessionEnv(t *testing.T) {
	got := sessionEnv([]string{"PATH=/bin", "CONDA_PKGS_DIRS=/old", "CONDAFS_SESSION=old", "X=CONDA_PKGS_DIRS="}, place{"/m", "/s"}, &control.Started{ID: "abc", Shelf: "/shelf"})
	want := []string{"PATH=/bin", "X=CONDA_PKGS_DIRS=", "CONDA_PKGS_DIRS=/m/pkgs,/shelf", "RATTLER_CACHE_DIR=/m/rattler", "CONDAFS_MOUNT=/m", "CONDAFS_SESSION=abc", "CONDAFS_SOCKET=/s"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestCommandLine(t *testing.T) {
	if got := commandLine([]string{"sh", "-c", "a\n\tb\xff\x1b[0m"}); got != "sh -c a  b? [0m" {
		t.Errorf("got %q", got)
	}
	if got := commandLine([]string{strings.Repeat("ü", 1000)}); len(got) > 510 || !strings.HasSuffix(got, "ü…") {
		t.Errorf("got %d bytes: %q", len(got), got)
	}
}

func TestScrubbing(t *testing.T) {
	for _, c := range []struct {
		rate, every string
		wantRate    int64
		wantEvery   time.Duration
	}{
		{"off", "7d", 0, 7 * 24 * time.Hour}, {"10M", "2w", 10 << 20, 14 * 24 * time.Hour}, {"50MB/s", "90m", 5e7, 90 * time.Minute},
		{"1", "12h30m", 1, 12*time.Hour + 30*time.Minute},
	} {
		rate, every, err := (&scrubbing{c.rate, c.every}).resolve()
		if err != nil || rate != c.wantRate || every != c.wantEvery {
			t.Errorf("%s, %s: %d, %v, %v", c.rate, c.every, rate, every, err)
		}
	}
	for _, bad := range []scrubbing{{"0", "7d"}, {"-1", "7d"}, {"", "7d"}, {"on", "7d"}, {"10M", ""}, {"10M", "0"}, {"10M", "d"}, {"10M", "-1d"}, {"10M", "9999999999w"}, {"10M", "-5m"}} {
		if _, _, err := bad.resolve(); !fault.Is(err, fault.Usage) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestTakeOptions(t *testing.T) {
	o := mountOptions{options: []string{"allow_other,lanes=off,noatime", "store=/s,log=/l", "max_read=4096,share=all,trust=7,limit=open=9", "scrub=5M,scrub_every=2w"}}
	if err := o.takeOptions(); err != nil {
		t.Fatal(err)
	}
	if !o.allowOther || o.lanes != "off" || o.store != "/s" || o.logFile != "/l" || !slices.Equal(o.options, []string{"noatime", "max_read=4096"}) {
		t.Errorf("%+v", o)
	}
	if o.policy.share != "all" {
		t.Errorf("%+v", o.policy)
	}
	o.mountPoint, o.logFormat, o.shelf = "/m", "text", "auto"
	want := []string{"mount", "--config", "", "--foreground", "--ready-fd", "3", "--store", "/s", "--log-file", "/l", "--log-format", "text", "--allow-other=true", "--verbose=false", "--lanes", "off", "--shelf", "auto", "-o", "",
		"--share", "all", "--trust", "", "--limit", "", "--trust", "7", "--limit", "open=9", "--scrub", "5M", "--scrub-every", "2w",
		"--metrics", "", "--max-size", "", "--min-free", "", "--max-age", "", "-o", "noatime", "-o", "max_read=4096", "--", "/m"}
	if got := o.daemonArgs(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestDefaults(t *testing.T) {
	a := func(env ...string) *app {
		return &app{getenv: func(k string) string {
			for _, e := range env {
				if v, ok := strings.CutPrefix(e, k+"="); ok {
					return v
				}
			}
			return ""
		}}
	}
	for _, c := range []struct {
		a          *app
		uid        int
		store, log string
	}{
		{a("HOME=/root"), 0, "/var/lib/condafs", "/var/log/condafs/a-b.log"},
		{a("HOME=/home/u"), 1000, "/home/u/.local/share/condafs", "/home/u/.local/state/condafs/a-b.log"},
		{a("HOME=/home/u", "XDG_DATA_HOME=/d", "XDG_STATE_HOME=/s"), 1000, "/d/condafs", "/s/condafs/a-b.log"},
		{a("HOME=/home/u", "XDG_DATA_HOME=relative"), 1000, "/home/u/.local/share/condafs", "/home/u/.local/state/condafs/a-b.log"},
	} {
		store, err := c.a.defaultStore(c.uid)
		if err != nil || store != c.store {
			t.Errorf("store %q %v, want %q", store, err, c.store)
		}
		log, err := c.a.defaultLog("/a/b", c.uid)
		if err != nil || log != c.log {
			t.Errorf("log %q %v, want %q", log, err, c.log)
		}
	}
	if _, err := a().defaultStore(1000); err == nil {
		t.Error("a store without a home")
	}
	if _, err := a().defaultLog("/a", 1000); err == nil {
		t.Error("a log without a home")
	}
	one, err := a("HOME=/h").defaultLog("/a-b", 1000)
	if err != nil || one == "/h/.local/state/condafs/a-b.log" {
		t.Errorf("/a-b and /a/b log to the same file %q: %v", one, err)
	}
	long, err := a("HOME=/h").defaultLog(strings.Repeat("/long", 100), 1000)
	if err != nil || len(filepath.Base(long)) > 255 {
		t.Errorf("%q %v", long, err)
	}
}

func TestAbsolute(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"link": "real", "link/x": "real/x", "none": "none", "none/below": "none/below", "real/../link": "real",
	} {
		got, err := absolute(dir + "/" + in)
		if err != nil || got != filepath.Join(dir, want) {
			t.Errorf("%s is %s, want %s: %v", in, got, want, err)
		}
	}
	if !same(dir+"/link", dir+"/real") || same(dir, "") || same(dir, dir+"/real") {
		t.Error("same is wrong")
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 9950: "10 kB", 999_499: "999 kB", 999_500: "1.0 MB", 1_500_000_000: "1.5 GB", 7e15: "7000 TB"} {
		if got := size(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestPolicy(t *testing.T) {
	p := policy{share: "all", trust: []string{"root", "12345"}, limits: []string{"sessions=3", "bytes=2GiB", "files=0", "open=5k"}}
	sharing, trusted, quota, err := p.resolve()
	if err != nil || sharing != cow.ShareAll || !slices.Equal(trusted, []uint32{0, 12345}) || quota != (cow.Quota{Sessions: 3, Bytes: 2 << 30, Open: 5000}) {
		t.Errorf("%v %v %+v %v", sharing, trusted, quota, err)
	}
	if _, _, quota, err := (&policy{share: "trusted"}).resolve(); err != nil || quota != defaultQuota {
		t.Errorf("%+v %v", quota, err)
	}
	for _, p := range []policy{
		{share: ""}, {share: "verified"}, {share: "all", trust: []string{"no such user"}}, {share: "all", trust: []string{"-1"}}, {share: "all", trust: []string{"4294967296"}},
		{share: "all", limits: []string{"memory=1"}}, {share: "all", limits: []string{"bytes"}}, {share: "all", limits: []string{"bytes=-1"}},
		{share: "all", limits: []string{"bytes=1.5G"}}, {share: "all", limits: []string{"bytes=9999999999TiB"}}, {share: "all", limits: []string{"bytes=GiB"}},
	} {
		if _, _, _, err := p.resolve(); !fault.Is(err, fault.Usage) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestUserRows(t *testing.T) {
	u := &control.Users{Sharing: "trusted", Trusted: []uint32{4294967294}, Limits: control.Amounts{Sessions: 512, Bytes: 100 << 30}, Usage: []control.Usage{{UID: 4294967293, Amounts: control.Amounts{Sessions: 1, Bytes: 2000}}}}
	got := fmt.Sprint(userRows(u))
	for _, want := range []string{"root, the owner, 4294967294", "512 sessions, any number open files, 107 GB in any number files", "4294967293: 1 sessions, 0 open files, 2.0 kB in 0 files"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s does not say %q", got, want)
		}
	}
	if userRows(nil) != nil {
		t.Error("there are none without other users")
	}
}

func TestSpaceLimits(t *testing.T) {
	l, err := (&spaceLimits{"50GiB", "1GB", "90d"}).resolve("mount")
	if err != nil || l != (trim.Limits{MaxSize: 50 << 30, MinFree: 1e9, MaxAge: 90 * 24 * time.Hour}) {
		t.Errorf("%+v %v", l, err)
	}
	if l, err := (&spaceLimits{}).resolve("mount"); err != nil || !l.None() {
		t.Errorf("%+v %v", l, err)
	}
	for _, bad := range []spaceLimits{{maxSize: "big"}, {minFree: "-1"}, {maxAge: "1d"}, {maxAge: "never"}} {
		if _, err := bad.resolve("mount"); !fault.Is(err, fault.Usage) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestObserving(t *testing.T) {
	for in, want := range map[string]string{"": "", "off": "", "9191": "127.0.0.1:9191", "unix:/run/m": "unix:/run/m"} {
		o := observing{in}
		if err := o.resolve(); err != nil || o.address != want {
			t.Errorf("%q is %q %v", in, o.address, err)
		}
		again := observing{o.args()[1]}
		if err := again.resolve(); err != nil || again != o {
			t.Errorf("%q again is %q %v", in, again.address, err)
		}
	}
	if err := (&observing{"nowhere"}).resolve(); !fault.Is(err, fault.Usage) {
		t.Error(err)
	}
}
