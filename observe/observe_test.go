package observe

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"condafs/control"
	"condafs/fault"
)

// store is a backend that says whom it was asked by.
type store struct{ control.Backend }

func (store) As(p control.Peer) control.API { return view{p: p} }

type view struct {
	control.API
	p control.Peer
}

func (v view) Status(context.Context) (*control.Status, error) {
	return &control.Status{Version: "v1", MountPoint: "/m", Head: 7}, nil
}
func (v view) Activity(context.Context) (*control.Activity, error) { return &control.Activity{}, nil }
func (v view) Sessions(context.Context) ([]control.Session, error) { return nil, nil }
func (v view) Packages(context.Context) ([]control.Package, error) {
	return []control.Package{{Name: "p-1-0", Owner: v.p.UID}}, nil
}
func (v view) Log(context.Context, int) ([]control.Commit, error) { return nil, nil }

func start(t *testing.T, o Options) (*Server, *http.Client) {
	t.Helper()
	o.Backend, o.Logger = store{}, slog.New(slog.DiscardHandler)
	if o.Address == (Address{}) {
		o.Address = Address{"tcp", "127.0.0.1:0"}
	}
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, s.Addr().Network(), s.Addr().String())
	}}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, &http.Client{Transport: tr}
}

func get(t *testing.T, c *http.Client, url string) (int, string, http.Header) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b), r.Header
}

func me() uint32 { return uint32(os.Getuid()) }

func TestOwnerSeesFiguresAndPage(t *testing.T) {
	dir := t.TempDir()
	for name, a := range map[string]Address{"tcp": {"tcp", "127.0.0.1:0"}, "tcp6": {"tcp", "[::1]:0"}, "unix": {"unix", filepath.Join(dir, "m.sock")}} {
		t.Run(name, func(t *testing.T) {
			if name == "tcp6" {
				l, err := net.Listen("tcp", "[::1]:0")
				if err != nil {
					t.Skip("no IPv6 here")
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			_, c := start(t, Options{Address: a, Owner: me()})
			if code, body, _ := get(t, c, "http://localhost/metrics"); code != 200 || !strings.Contains(body, "condafs_head 7\n") {
				t.Errorf("%d %s", code, body)
			}
			code, body, h := get(t, c, "http://127.0.0.1/")
			if code != 200 || !strings.Contains(body, "p-1-0") {
				t.Errorf("%d %s", code, body)
			}
			if csp := h.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") {
				t.Errorf("policy %q", csp)
			}
		})
	}
}

func TestWhoMayNotSeeThePage(t *testing.T) {
	if me() == 0 {
		t.Skip("root may see everything")
	}
	_, c := start(t, Options{Owner: me() + 1})
	if code, _, _ := get(t, c, "http://localhost/"); code != 403 {
		t.Errorf("another user's page is %d", code)
	}
	_, c = start(t, Options{Owner: me() + 1, Others: true})
	if code, body, _ := get(t, c, "http://localhost/"); code != 200 || !strings.Contains(body, "you see what is yours") {
		t.Errorf("a user of the mount gets %d %s", code, body)
	}
}

// A web site must not read the page through its visitor's browser, by a name of its own that points here.
func TestOtherNames(t *testing.T) {
	_, c := start(t, Options{Owner: me()})
	for host, want := range map[string]int{"evil.example": 403, "evil.example:9191": 403, "127.0.0.1:1": 200, "[::1]:9": 200, "localhost": 200, "127.0.0.1.evil.example": 403} {
		if code, _, _ := get(t, c, "http://"+host+"/packages"); code != want {
			t.Errorf("as %s it is %d, want %d", host, code, want)
		}
		if code, _, _ := get(t, c, "http://"+host+"/metrics"); code != 200 {
			t.Errorf("figures as %s: %d", host, code)
		}
	}
}

func TestOnlyQuestions(t *testing.T) {
	_, c := start(t, Options{Owner: me()})
	r, err := c.Post("http://localhost/", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Body.Close(); err != nil || r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("%d %v", r.StatusCode, err)
	}
}

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"9191": "127.0.0.1:9191", ":9191": "127.0.0.1:9191", "localhost:09": "localhost:9", "0.0.0.0:80": "0.0.0.0:80", "[::1]:80": "[::1]:80",
		"unix:/run/x/../m": "unix:/run/m", "/run/m": "unix:/run/m",
	} {
		a, err := ParseAddress(in)
		if err != nil || a.String() != want {
			t.Errorf("%s is %v %v, want %s", in, a, err, want)
		}
		if again, err := ParseAddress(a.String()); err != nil || again != a {
			t.Errorf("%s again is %v %v", a, again, err)
		}
	}
	for _, in := range []string{"", "port", "1:2:3", "70000", "-1", "unix:m", "host:", "/" + strings.Repeat("x", 101)} {
		if a, err := ParseAddress(in); !fault.Is(err, fault.Usage) {
			t.Errorf("%q is %v %v", in, a, err)
		}
	}
}

func TestSocketsThatAreThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Address: Address{"unix", path}, Backend: store{}, Logger: slog.New(slog.DiscardHandler)}
	if _, err := Start(o); !fault.Is(err, fault.Busy) {
		t.Errorf("beside another: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, o) // over what a dead one has left
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Address.Name = file
	if _, err := Start(o); err == nil {
		t.Error("it listens at a file")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Errorf("the file is gone: %q %v", b, err)
	}
}

// What the kernel shows of a connection from 127.0.0.1:40000 to 127.0.0.1:9191, and of others.
func TestFindOwner(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	line := func(local, remote, state, uid string) string {
		return "   0: " + local + " " + remote + " " + state + " 00000000:00000000 00:00000000 00000000  " + uid + "        0 1 1 0 20 4 30 10 -1\n"
	}
	from, to := netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:9191")
	for text, want := range map[string]uint32{
		line("0100007F:23E7", "0100007F:9C40", "01", "5") + line("0100007F:9C40", "0100007F:23E7", "01", "1000"): 1000,
		line("0100007F:9C40", "0100007F:23E7", "06", "0"):                                                        math.MaxUint32, // it is over
		line("0100007F:9C40", "0100007F:23E8", "01", "1000"):                                                     math.MaxUint32,
		line("zz", "0100007F:23E7", "01", "1000") + "nonsense\n":                                                 math.MaxUint32,
		line("0000000000000000FFFF00000100007F:9C40", "0000000000000000FFFF00000100007F:23E7", "01", "7"):        7,
	} {
		uid, found, err := findOwner(strings.NewReader(head+text), from, to)
		if err != nil || found != (want != math.MaxUint32) || found && uid != want {
			t.Errorf("%q: %d %v %v", text, uid, found, err)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limited(inner, 1)
	var conns []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = c.Close()
		}
		second <- err
	}()
	select {
	case err := <-second:
		t.Fatalf("a second one is let in: %v", err)
	case <-time.After(10 * time.Millisecond): // at most it is not seen
	}
	if err := errors.Join(first.Close(), first.Close()); err == nil {
		t.Error("closing twice")
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	third, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if c, err := l.Accept(); err == nil {
		t.Errorf("it accepts after its end: %v", c.Close())
	}
	for _, c := range append(conns, third) {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
