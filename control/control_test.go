package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"condafs/fault"
)

// fake is a backend with one session of uid 1000, which records what it is asked.
type fake struct {
	mu    sync.Mutex
	peers []Peer
	asked []string
	work  func(ctx context.Context, f ProgressFunc) error // of the long requests
}

func (f *fake) SessionOwner(id string) (uint32, bool) { return 1000, id == "abc" }
func (f *fake) As(p Peer) API {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.peers = append(f.peers, p)
	return &fakeAPI{fake: f}
}

func (f *fake) note(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, s)
}

func (f *fake) notes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

type fakeAPI struct{ *fake }

func (f *fakeAPI) Status(context.Context) (*Status, error) {
	f.note("status")
	return &Status{Version: "v1", Head: 7, Quarantine: []Quarantine{}}, nil
}
func (f *fakeAPI) Activity(context.Context) (*Activity, error) {
	f.note("activity")
	return &Activity{Waits: 3}, nil
}
func (f *fakeAPI) Sessions(context.Context) ([]Session, error) { f.note("sessions"); return nil, nil }
func (f *fakeAPI) Start(_ context.Context, r StartRequest) (*Started, error) {
	f.note("start " + r.Label)
	if r.Label == "full" {
		return nil, fault.New("start session", r.Label, fault.Full, errors.New("no space left")).WithHint("free some")
	}
	return &Started{ID: "abc"}, nil
}
func (f *fakeAPI) End(_ context.Context, id string, r EndRequest) (*Report, error) {
	f.note("end " + id)
	return &Report{Head: uint64(r.ExitCode), Committed: []Committed{}}, nil
}
func (f *fakeAPI) Commit(_ context.Context, id string) (*Report, error) {
	f.note("commit " + id)
	return &Report{}, nil
}
func (f *fakeAPI) Discard(_ context.Context, id string) error { f.note("discard " + id); return nil }
func (f *fakeAPI) Packages(context.Context) ([]Package, error) {
	f.note("packages")
	return []Package{{Name: "a-1-0"}}, nil
}
func (f *fakeAPI) Package(_ context.Context, name string) (*PackageFiles, error) {
	f.note("package " + name)
	return &PackageFiles{Package: Package{Name: name}}, nil
}
func (f *fakeAPI) Log(_ context.Context, limit int) ([]Commit, error) {
	f.note("log")
	return make([]Commit, limit), nil
}
func (f *fakeAPI) long(ctx context.Context, what string, p ProgressFunc) error {
	f.note(what)
	if f.work == nil {
		return nil
	}
	return f.work(ctx, p)
}
func (f *fakeAPI) Verify(ctx context.Context, r VerifyRequest, p ProgressFunc) (*VerifyReport, error) {
	err := f.long(ctx, "verify", p)
	return &VerifyReport{Full: r.Full}, err
}
func (f *fakeAPI) Repair(ctx context.Context, r RepairRequest, p ProgressFunc) (*RepairReport, error) {
	v, err := f.Verify(ctx, VerifyRequest(r), p)
	if err != nil {
		return nil, err
	}
	return &RepairReport{VerifyReport: *v, Removed: []string{}}, nil
}
func (f *fakeAPI) Scrub(ctx context.Context, _ ScrubRequest, p ProgressFunc) (*ScrubPass, error) {
	return &ScrubPass{}, f.long(ctx, "scrub", p)
}
func (f *fakeAPI) GC(ctx context.Context, r GCRequest, p ProgressFunc) (*GCReport, error) {
	err := f.long(ctx, "gc", p)
	return &GCReport{DryRun: r.DryRun}, err
}
func (f *fakeAPI) Import(ctx context.Context, r ImportRequest, p ProgressFunc) (*ImportReport, error) {
	return &ImportReport{}, f.long(ctx, "import "+r.Dir, p)
}
func (f *fakeAPI) Export(ctx context.Context, r ExportRequest, p ProgressFunc) (*ExportReport, error) {
	return &ExportReport{}, f.long(ctx, "export "+r.Dir, p)
}
func (f *fakeAPI) Upgrade(ctx context.Context, r UpgradeRequest, p ProgressFunc) (*Upgrade, error) {
	err := f.long(ctx, "upgrade "+r.Binary, p)
	return &Upgrade{ID: "up1", State: UpgradeBegun}, err
}
func (f *fakeAPI) Upgraded(_ context.Context, id string) (*Upgrade, error) {
	f.note("upgraded " + id)
	return &Upgrade{ID: id, State: UpgradeDone}, nil
}
func (f *fakeAPI) Stop(ctx context.Context, r StopRequest, p ProgressFunc) (*Stopped, error) {
	return &Stopped{PID: os.Getpid()}, f.long(ctx, "stop", p)
}

// serve starts a server for the fake on a real socket and returns a client of it.
// The socket is owned by whoever runs the test, who may do everything.
func serve(t *testing.T, f *fake) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s", "c.sock")
	l, err := Listen(path, false)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(f, uint32(os.Getuid()), true, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	c := NewClient(path)
	t.Cleanup(func() {
		c.Close()
		if err := s.Shutdown(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return c
}

func TestEveryRequestReachesTheBackend(t *testing.T) {
	f := &fake{}
	c := serve(t, f)
	ctx := t.Context()
	must := func(v any, err error) any {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if st := must(c.Status(ctx)).(*Status); st.Head != 7 || st.Version != "v1" {
		t.Errorf("status %+v", st)
	}
	if a := must(c.Activity(ctx)).(*Activity); a.Waits != 3 {
		t.Errorf("activity %+v", a)
	}
	if l := must(c.Sessions(ctx)).([]Session); l == nil || len(l) != 0 {
		t.Errorf("an empty list came as %#v", l)
	}
	if s := must(c.Start(ctx, StartRequest{Label: "ünï"})).(*Started); s.ID != "abc" {
		t.Errorf("session %+v", s)
	}
	if r := must(c.End(ctx, "abc", EndRequest{ExitCode: 143})).(*Report); r.Head != 143 {
		t.Errorf("report %+v", r)
	}
	must(c.Commit(ctx, "abc"))
	must(nil, c.Discard(ctx, "abc"))
	must(c.Packages(ctx))
	if p := must(c.Package(ctx, "a%2f b-1-0?x")).(*PackageFiles); p.Name != "a%2f b-1-0?x" {
		t.Errorf("the name came as %q", p.Name)
	}
	if l := must(c.Log(ctx, 3)).([]Commit); len(l) != 3 {
		t.Errorf("%d lines of log", len(l))
	}
	if r := must(c.Verify(ctx, VerifyRequest{Full: true}, nil)).(*VerifyReport); !r.Full {
		t.Errorf("verify %+v", r)
	}
	if r := must(c.GC(ctx, GCRequest{DryRun: true}, nil)).(*GCReport); !r.DryRun {
		t.Errorf("gc %+v", r)
	}
	must(c.Import(ctx, ImportRequest{Dir: "/a b"}, nil))
	must(c.Export(ctx, ExportRequest{Dir: "/x", Names: []string{"a-1-0"}}, nil))
	must(c.Upgrade(ctx, UpgradeRequest{Binary: "/b"}, nil))
	if u := must(c.Upgraded(ctx, "up1")).(*Upgrade); u.ID != "up1" || u.State != UpgradeDone {
		t.Errorf("upgraded %+v", u)
	}
	must(c.Stop(ctx, StopRequest{}, nil))

	want := "status,activity,sessions,start ünï,end abc,commit abc,discard abc,packages,package a%2f b-1-0?x,log,verify,gc,import /a b,export /x,upgrade /b,upgraded up1,stop"
	if got := strings.Join(f.notes(), ","); got != want {
		t.Errorf("asked\n%s\nwant\n%s", got, want)
	}
	self := Peer{PID: os.Getpid(), UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	for _, p := range f.peers {
		if p != self {
			t.Fatalf("the peer is %+v, want %+v", p, self)
		}
	}
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	c := serve(t, &fake{work: func(context.Context, ProgressFunc) error {
		return fault.New("import", "/d", fault.Corrupt, errors.New("bad bytes")).WithHint("look")
	}})
	_, err := c.Start(t.Context(), StartRequest{Label: "full"})
	if !fault.Is(err, fault.Full) || err.Error() != "start session full: no space left; free some" {
		t.Errorf("got %v", err)
	}
	_, err = c.Import(t.Context(), ImportRequest{Dir: "/d"}, nil)
	if !fault.Is(err, fault.Corrupt) || err.Error() != "import /d: bad bytes; look" {
		t.Errorf("got %v", err)
	}
	for name, ask := range map[string]func() error{
		"relative directory": func() error { _, err := c.Import(t.Context(), ImportRequest{Dir: "d"}, nil); return err },
		"unclean directory":  func() error { _, err := c.Import(t.Context(), ImportRequest{Dir: "/d/../e"}, nil); return err },
		"bad label":          func() error { _, err := c.Start(t.Context(), StartRequest{Label: "a\x1b[0m"}); return err },
		"bad on-failure":     func() error { _, err := c.Start(t.Context(), StartRequest{OnFailure: "x"}); return err },
		"bad exit code":      func() error { _, err := c.End(t.Context(), "abc", EndRequest{ExitCode: 256}); return err },
		"bad package":        func() error { _, err := c.Package(t.Context(), ".."); return err },
		"bad limit":          func() error { _, err := c.Log(t.Context(), -1); return err },
		"relative program":   func() error { _, err := c.Upgrade(t.Context(), UpgradeRequest{Binary: "b"}, nil); return err },
		"no program":         func() error { _, err := c.Upgrade(t.Context(), UpgradeRequest{}, nil); return err },
		"bad upgrade id":     func() error { _, err := c.Upgraded(t.Context(), "../x"); return err },
		"bad session id":     func() error { return c.Discard(t.Context(), "../x") },
	} {
		if err := ask(); !fault.Is(err, fault.Usage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Discard(t.Context(), "other"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a session that is not there: %v", err)
	}
}

func TestKindsSurviveTheSocket(t *testing.T) {
	for k := fault.Other; k <= fault.TooMany; k++ {
		err := toWire(fault.New("op", "name", k, errors.New("cause")).WithHint("hint")).fault()
		if fault.KindOf(err) != k {
			t.Errorf("%v became %v", k, fault.KindOf(err))
		}
	}
	plain := toWire(errors.New("just so")).fault()
	if plain.Error() != "just so" {
		t.Errorf("a plain error became %q", plain)
	}
	wrapped := toWire(errors.Join(fault.New("a", "b", fault.Busy, nil))).fault()
	if !fault.Is(wrapped, fault.Busy) || !strings.Contains(wrapped.Error(), "a b") {
		t.Errorf("a wrapped fault became %q", wrapped)
	}
}

// TestWhoMay checks the rules for peers that this process cannot be, through the
// handler and without a socket.
func TestWhoMay(t *testing.T) {
	const owner = 500
	f := &fake{}
	s := NewServer(f, owner, true, slog.New(slog.DiscardHandler))
	status := func(p *Peer, method, path string) int {
		pr, pw := net.Pipe()
		defer pw.Close()
		done := make(chan struct{})
		hs := &http.Server{Handler: s.http.Handler, ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			if p != nil {
				return withPeer(ctx, *p)
			}
			return ctx
		}}
		l := &oneConn{c: pr, done: done}
		go func() { _ = hs.Serve(l) }()
		defer hs.Close()
		defer close(done)
		c := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return pw, nil }}}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+prefix+path, strings.NewReader(bodies[path]))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	who := []struct {
		name string
		peer *Peer
	}{
		{"root", &Peer{UID: 0}}, {"owner", &Peer{UID: owner}}, {"session's", &Peer{UID: 1000}}, {"other", &Peer{UID: 1001}}, {"nobody", nil},
	}
	for _, c := range []struct {
		method, path string
		want         [5]int
	}{
		{"GET", "/status", [5]int{200, 200, 200, 200, 403}},
		{"GET", "/sessions", [5]int{200, 200, 200, 200, 403}},
		{"POST", "/sessions", [5]int{200, 200, 200, 200, 403}},
		{"GET", "/packages", [5]int{200, 200, 200, 200, 403}},
		{"GET", "/packages/a-1-0", [5]int{200, 200, 200, 200, 403}},
		{"GET", "/log", [5]int{200, 200, 200, 200, 403}},
		{"POST", "/sessions/abc/commit", [5]int{200, 200, 200, 404, 403}},
		{"POST", "/sessions/abc/discard", [5]int{200, 200, 200, 404, 403}},
		{"POST", "/sessions/abc/end", [5]int{200, 200, 200, 404, 403}},
		{"POST", "/verify", [5]int{200, 200, 403, 403, 403}},
		{"POST", "/scrub", [5]int{200, 200, 403, 403, 403}},
		{"POST", "/gc", [5]int{200, 200, 403, 403, 403}},
		{"POST", "/import", [5]int{200, 200, 403, 403, 403}},
		{"POST", "/export", [5]int{200, 200, 403, 403, 403}},
		{"POST", "/upgrade", [5]int{200, 200, 403, 403, 403}},
		{"GET", "/upgrade/up1", [5]int{200, 200, 403, 403, 403}},
		{"POST", "/stop", [5]int{200, 200, 403, 403, 403}},
	} {
		for i, w := range who {
			if got := status(w.peer, c.method, c.path); got != c.want[i] {
				t.Errorf("%s %s as %s: %d, want %d", c.method, c.path, w.name, got, c.want[i])
			}
		}
	}
}

var bodies = map[string]string{"/import": `{"dir":"/d"}`, "/export": `{"dir":"/d"}`, "/upgrade": `{"binary":"/b"}`}

// oneConn is a listener that yields one connection.
type oneConn struct {
	c    net.Conn
	once sync.Once
	done chan struct{}
}

func (l *oneConn) Accept() (c net.Conn, err error) {
	l.once.Do(func() { c = l.c })
	if c == nil {
		<-l.done
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{} }

func TestProgressComesBeforeTheResult(t *testing.T) {
	c := serve(t, &fake{work: func(_ context.Context, p ProgressFunc) error {
		for i := range int64(1000) {
			p.Report(Progress{Phase: "one", Done: i, Total: 1000})
		}
		p.Report(Progress{Phase: "two"})
		return nil
	}})
	var phases []string
	n := 0
	if _, err := c.Verify(t.Context(), VerifyRequest{}, func(p Progress) {
		n++
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(phases, []string{"one", "two"}) {
		t.Errorf("phases %v", phases)
	}
	if n == 1001 {
		t.Error("no line of progress was spared")
	}
}

func TestHangingUpCancelsTheWork(t *testing.T) {
	began, ended := make(chan struct{}), make(chan error, 1)
	c := serve(t, &fake{work: func(ctx context.Context, p ProgressFunc) error {
		p.Report(Progress{Phase: "x"})
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	if _, err := c.GC(ctx, GCRequest{}, nil); !fault.Is(err, fault.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the work ended with %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	c := NewClient(filepath.Join(t.TempDir(), "none"))
	if _, err := c.Status(t.Context()); !fault.Is(err, fault.NotMounted) || !strings.Contains(err.Error(), "condafs mount") {
		t.Errorf("got %v", err)
	}
}

func TestDaemonHangsUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 10))
			_ = c.Close()
		}
	}()
	c := NewClient(path)
	if _, err := c.Start(t.Context(), StartRequest{}); !fault.Is(err, fault.NotMounted) {
		t.Errorf("got %v", err)
	}
	c.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	<-done
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "d", "s")
	l, err := Listen(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
	if _, err := Listen(path, false); !fault.Is(err, fault.Busy) {
		t.Errorf("a second daemon: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	// What a killed daemon leaves behind is in nobody's way.
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	u.SetUnlinkOnClose(false)
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = Listen(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o666 {
		t.Errorf("%v %v", fi, err)
	}
	if fi, err := os.Stat(filepath.Dir(path)); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("%v %v", fi, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	// A directory that others can write to is not trusted.
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(open, "s"), false); !fault.Is(err, fault.Permission) {
		t.Errorf("got %v", err)
	}
}

func TestSocketPath(t *testing.T) {
	env := func(dir string) func(string) string {
		return func(k string) string {
			if k == "XDG_RUNTIME_DIR" {
				return dir
			}
			return ""
		}
	}
	a := SocketPath("/m", 1000, false, env("/run/user/1000"))
	if !strings.HasPrefix(a, "/run/user/1000/condafs/") || a == SocketPath("/n", 1000, false, env("/run/user/1000")) {
		t.Errorf("got %s", a)
	}
	// Others cannot reach into a user's own directory.
	for _, p := range []string{SocketPath("/m", 1000, true, env("/run/user/1000")), SocketPath("/m", 1000, false, env("")), SocketPath("/m", 1000, false, env("relative"))} {
		if !strings.HasPrefix(p, filepath.Join(os.TempDir(), "condafs-1000")+"/") {
			t.Errorf("got %s", p)
		}
	}
	if p := SocketPath("/"+strings.Repeat("x", 4000), 0, true, env("")); len(p) > 107 {
		t.Errorf("%s is too long for a socket", p)
	}
}

func TestOthersCannotUseUpTheDaemon(t *testing.T) {
	l := newLimits(500, true)
	for range maxPerUser {
		if !l.enter(1000) {
			t.Fatal("turned away too early")
		}
	}
	if l.enter(1000) {
		t.Error("one user has more than the limit")
	}
	for u := uint32(2000); l.enter(u); u++ {
		if u > 2000+maxOthers {
			t.Fatal("no bound on all users together")
		}
	}
	if !l.enter(500) || !l.enter(0) {
		t.Error("the owner and root are turned away")
	}
	l.leave(1000)
	if !l.enter(1000) {
		t.Error("leaving frees no place")
	}
}

func TestParseMounts(t *testing.T) {
	const info = `24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
25 24 0:22 / /mnt/a\040b rw,nosuid,nodev shared:2 - fuse.condafs condafs rw,user_id=0
26 25 0:22 /.sessions/abc /mnt/a\040b rw - fuse.condafs condafs rw
27 24 0:23 / /proc rw - proc proc rw
junk
`
	l, err := ParseMounts(strings.NewReader(info))
	if err != nil {
		t.Fatal(err)
	}
	if len(l) != 4 || l[1].Point != "/mnt/a b" || l[1].Device != "0:22" || l[2].Root != "/.sessions/abc" {
		t.Errorf("%+v", l)
	}
	if p, err := OnlyMount(l); err != nil || p != "/mnt/a b" {
		t.Errorf("%q %v", p, err)
	}
	if _, err := OnlyMount(nil); !fault.Is(err, fault.NotMounted) {
		t.Errorf("none: %v", err)
	}
	if _, err := OnlyMount(append(l, Mount{Point: "/b", Root: "/", Type: FSType})); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "/mnt/a b, /b") {
		t.Errorf("two: %v", err)
	}
}

func TestReadInfo(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadInfo(dir); !fault.Is(err, fault.NotMounted) {
		t.Errorf("no file: %v", err)
	}
	name := filepath.Join(dir, InfoName)
	if err := os.WriteFile(name, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadInfo(dir); !fault.Is(err, fault.NotMounted) {
		t.Errorf("no socket: %v", err)
	}
	want := Info{Socket: "/s", Store: "/st", PID: 3, Version: "v"}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadInfo(dir); err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
}

func TestDecode(t *testing.T) {
	for in, ok := range map[string]bool{
		``: true, ` `: true, `{}`: true, `{"dry_run":true} `: true, `{"dryrun":true}`: false,
		`{"dry_run":true}{}`: false, `[]`: false, `{"dry_run":1}`: false, `{`: false,
	} {
		if _, err := decode[GCRequest](strings.NewReader(in)); (err == nil) != ok {
			t.Errorf("%q: %v", in, err)
		} else if err != nil && !fault.Is(err, fault.Usage) {
			t.Errorf("%q: kind %v", in, fault.KindOf(err))
		}
	}
	big := `{"label":"` + strings.Repeat("a", maxBody) + `"}`
	if _, err := decode[StartRequest](strings.NewReader(big)); !fault.Is(err, fault.Usage) {
		t.Errorf("a body over the bound: %v", err)
	}
}

// FuzzDecode checks that a request either is refused as wrong usage, or holds only
// values that are safe to show and to use, and survives another round.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{``, `{}`, `{"label":"x","on_failure":"keep"}`, `{"dir":"/a/b","names":["a-1-0"]}`, `{"exit_code":3}`, `{"lazy":true}`, `{"dir":"/a/../b"}`, "{\"label\":\"\\u001b\"}", `{"names":["../x"],"dir":"/"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		again(t, b, func(r StartRequest) {
			if strings.ContainsAny(r.Label+r.Command, "\x00\x1b\n") || len(r.Label) > maxLabel {
				t.Errorf("accepted %+v", r)
			}
		})
		again(t, b, func(r EndRequest) {
			if r.ExitCode < 0 || r.ExitCode > 255 {
				t.Errorf("accepted %v", r)
			}
		})
		again(t, b, func(r ExportRequest) {
			for _, n := range r.Names {
				if n == ".." || strings.Contains(n, "/") {
					t.Errorf("accepted %q", n)
				}
			}
		})
		again(t, b, func(r ImportRequest) {
			if filepath.Clean(r.Dir) != r.Dir || !filepath.IsAbs(r.Dir) {
				t.Errorf("accepted %q", r.Dir)
			}
		})
		again(t, b, func(VerifyRequest) {})
		again(t, b, func(GCRequest) {})
		again(t, b, func(StopRequest) {})
	})
}

func again[T request](t *testing.T, b []byte, check func(T)) {
	v, err := decode[T](bytes.NewReader(b))
	if err != nil {
		if !fault.Is(err, fault.Usage) {
			t.Errorf("%q is refused as %v", b, fault.KindOf(err))
		}
		return
	}
	check(v)
	if e, ok := any(&v).(*ExportRequest); ok && len(e.Names) == 0 {
		e.Names = nil // [] and nothing mean the same
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	w, err := decode[T](bytes.NewReader(out))
	if err != nil || !reflect.DeepEqual(v, w) {
		t.Errorf("%q became %+v and then %+v: %v", b, v, w, err)
	}
}

// TestKeptSocket gives a socket from one listener to the next: it stays where it is, and who connects meanwhile waits.
func TestKeptSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s", "c.sock")
	l, err := Listen(path, false)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	s := NewServer(&fake{}, uint32(os.Getuid()), false, log)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	c := NewClient(path)
	defer c.Close()
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := Keep(l)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Shutdown(t.Context()), <-served); err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := c.Status(t.Context())
		asked <- err
	}()
	if l, err = Inherit(f, path); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s = NewServer(&fake{}, uint32(os.Getuid()), false, log)
	go func() { served <- s.Serve(l) }()
	if err := <-asked; err != nil {
		t.Errorf("who asked meanwhile: %v", err)
	}
	if err := errors.Join(s.Shutdown(t.Context()), <-served); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if _, err := Keep(&oneConn{}); err == nil {
		t.Error("another's listener was kept")
	}
}

// TestWorking names what takes long while it does.
func TestWorking(t *testing.T) {
	s := &Server{}
	end := s.long.begin("verify")
	also := s.long.begin("verify")
	s.long.begin("gc")()
	end()
	if got := s.Working(); len(got) != 1 || got[0] != "verify" {
		t.Errorf("got %q", got)
	}
	also()
	if got := s.Working(); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}
