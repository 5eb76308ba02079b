package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"condafs/fault"
)

// patience bounds waits for what must come; nothing is measured.
const patience = time.Minute

// TestOthersStayOutside: on a mount that is its user's alone, nobody else is
// answered, also where the socket could be reached.
func TestOthersStayOutside(t *testing.T) {
	l := newLimits(500, false)
	if l.enter(1000) {
		t.Error("another user was let in")
	}
	if !l.enter(500) || !l.enter(0) {
		t.Error("the owner or root was turned away")
	}
	if len(l.users) != 0 || l.total != 0 {
		t.Errorf("who was turned away is counted: %v", l.users)
	}
}

// TestReadsOfOneUserWait: a user who asks on all connections at once occupies the
// daemon no more than one who asks twice, and keeps nobody else waiting.
func TestReadsOfOneUserWait(t *testing.T) {
	l := newLimits(500, true)
	for _, uid := range []uint32{1000, 1001} {
		if !l.enter(uid) {
			t.Fatal("turned away")
		}
	}
	var done []func()
	for range maxReads {
		d, err := l.read(t.Context(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, d)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := l.read(ended, 1000); !fault.Is(err, fault.Canceled) {
		t.Errorf("one more: %v", err)
	}
	for _, uid := range []uint32{1001, 500, 0} {
		d, err := l.read(t.Context(), uid)
		if err != nil {
			t.Errorf("uid %d has to wait: %v", uid, err)
			continue
		}
		d()
	}
	next := make(chan error, 1)
	go func() {
		d, err := l.read(t.Context(), 1000)
		if err == nil {
			d()
		}
		next <- err
	}()
	done[0]()
	if err := <-next; err != nil {
		t.Error(err)
	}
}

// raw sends bytes to a server for the fake and returns all that it answers until it
// hangs up.
func raw(t *testing.T, socket, request string) string {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "broken pipe") && !strings.Contains(err.Error(), "reset") {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the server neither answers nor hangs up: %q", b)
	}
	return string(b)
}

// TestMalformedRequests: nothing that a client sends keeps the server from serving
// the next one, and nothing malformed reaches the backend.
func TestMalformedRequests(t *testing.T) {
	f := &fake{}
	c := serve(t, f)
	post := func(path, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	}
	long := strings.Repeat("x", maxBody)
	for name, x := range map[string]struct{ request, status string }{
		"no HTTP":               {"\x00\x01\x02\x03\r\n\r\n", "400"},
		"a header without end":  {"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431"},
		"many headers":          {"GET /v1/status HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 16<<10) + "\r\n", "431"},
		"two lengths":           {"POST /v1/gc HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "400"},
		"length and chunks":     {"POST /v1/gc HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200"},
		"a broken chunk":        {"POST /v1/gc HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
		"a body without end":    {post("/v1/sessions", `{"label":"`+long+long+`"}`), "400"},
		"spaces without end":    {post("/v1/sessions", strings.Repeat(" ", 2*maxBody)), "400"},
		"deep JSON":             {post("/v1/gc", strings.Repeat("[", 100_000)), "400"},
		"no JSON":               {post("/v1/gc", "dry_run"), "400"},
		"an unknown field":      {post("/v1/gc", `{"dryrun":true}`), "400"},
		"another type":          {post("/v1/gc", `{"dry_run":"yes"}`), "400"},
		"two values":            {post("/v1/gc", `{}{}`), "400"},
		"a control character":   {post("/v1/sessions", `{"label":"\u001b[2J"}`), "400"},
		"no UTF-8":              {post("/v1/sessions", "{\"label\":\"\xff\xfe\"}"), "200"}, // JSON makes U+FFFD of it
		"a huge number":         {post("/v1/sessions/abc/end", `{"exit_code":1e400}`), "400"},
		"an exit code":          {post("/v1/sessions/abc/end", `{"exit_code":256}`), "400"},
		"a relative directory":  {post("/v1/import", `{"dir":"../../etc"}`), "400"},
		"dots in a directory":   {post("/v1/export", `{"dir":"/srv/../etc"}`), "400"},
		"NUL in a directory":    {post("/v1/import", `{"dir":"/srv\u0000/x"}`), "400"},
		"slash in a package":    {post("/v1/export", `{"dir":"/d","names":["../x"]}`), "400"},
		"a session of dots":     {post("/v1/sessions/..%2f..%2fx/discard", ""), "400"},
		"a session of NUL":      {post("/v1/sessions/a%00b/commit", ""), "400"},
		"a package of dots":     {"GET /v1/packages/..%2f..%2fetc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "400"},
		"a limit of nonsense":   {"GET /v1/log?limit=-1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "400"},
		"another version":       {"GET /v2/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404"},
		"another method":        {"DELETE /v1/sessions/abc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404"},
		"a tunnel":              {"CONNECT /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404"},
		"an absolute path away": {"GET http://elsewhere/v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "200"},
	} {
		before := len(f.notes())
		answer := raw(t, c.Socket(), x.request)
		status, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
		if err != nil {
			t.Errorf("%s: %q: %v", name, answer, err)
			continue
		}
		if !strings.HasPrefix(status.Status, x.status) {
			t.Errorf("%s: %s, want %s", name, status.Status, x.status)
		}
		if calls := f.notes()[before:]; x.status != "200" && len(calls) > 0 {
			t.Errorf("%s: the backend was asked for %v", name, calls)
		}
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestSlowClientsAreHungUpOn: who sends a request byte by byte, or not at all, or does
// not read the answer, does not keep a connection for good.
func TestSlowClientsAreHungUpOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s", "c.sock")
	l, err := Listen(path, false)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(&fake{}, uint32(os.Getuid()), false, slog.New(slog.DiscardHandler))
	for what, d := range map[string]time.Duration{"headers": s.http.ReadHeaderTimeout, "body": s.http.ReadTimeout, "next request": s.http.IdleTimeout} {
		if d <= 0 || d > time.Minute {
			t.Errorf("the server waits %v for the %s", d, what)
		}
	}
	const short = 50 * time.Millisecond
	s.http.ReadHeaderTimeout, s.http.ReadTimeout, s.http.IdleTimeout = short, short, short
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	for name, start := range map[string]string{
		"nothing":         "",
		"half a header":   "GET /v1/status HTT",
		"half a body":     "POST /v1/gc HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
		"half a chunk":    "POST /v1/gc HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{",
		"no next request": "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		answer := raw(t, path, start) // fails the test if it is never hung up on
		if strings.Contains(answer, "200 OK") != (name == "no next request") {
			t.Errorf("%s: %q", name, answer)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
