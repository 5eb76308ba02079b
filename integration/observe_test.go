package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// freePort is one that nobody listens at, for a moment at least.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

func httpGet(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v\n%s", url, r.Status, err, b)
	}
	return string(b)
}

// figure reads one figure of a scrape.
func figure(t *testing.T, scrape, name string) float64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(scrape)
	if m == nil {
		t.Fatalf("no %s in\n%s", name, scrape)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Figures and the page tell of a client's work, to whom they should, and go on over an upgrade.
func TestObserved(t *testing.T) {
	address := freePort(t)
	url := "http://" + address
	s, env, m := serve(t), envs(t), newMount(t, "--metrics", address)
	c := conda(t, s, m.pkgs(), env("observed", 0), "lib00").under(m, "--label", "seen <b>here</b>")
	atOnce(t, c)
	mustSucceed(t, c)
	m.settle()
	look := func() string {
		t.Helper()
		scrape := httpGet(t, url+"/metrics")
		packages := figure(t, scrape, `condafs_packages{kind="package",trust="verified"}`)
		if st := m.status(); packages == 0 || packages != float64(st.Packages) || figure(t, scrape, "condafs_store_bytes") != float64(st.StoredBytes) ||
			figure(t, scrape, "condafs_head") != float64(st.Head) {
			t.Errorf("figures are not those of %+v:\n%s", st, scrape)
		}
		page := httpGet(t, url)
		if !strings.Contains(page, "lib00-") || !strings.Contains(page, "seen &lt;b&gt;here&lt;/b&gt;") || strings.Contains(page, "seen <b>") {
			t.Errorf("the page tells nothing of what was done, or not escaped:\n%s", page)
		}
		return scrape
	}
	scrape := look()
	for _, name := range []string{
		`condafs_published_units_total{kind="package",trust="verified"}`, `condafs_published_bytes_total{kind="archive",trust="verified"}`,
		`condafs_sessions_started_total{kind="explicit"}`, `condafs_request_duration_seconds_count{op="lookup"}`, `condafs_request_duration_seconds_count{op="create"}`,
	} {
		if figure(t, scrape, name) == 0 {
			t.Errorf("%s is 0", name)
		}
	}
	if n := figure(t, scrape, `condafs_request_errors_total{errno="EIO"}`); n != 0 {
		t.Errorf("%v input/output errors", n)
	}
	if os.Getuid() == 0 {
		// Nobody else is let into this mount, so nobody else may look at it.
		cmd := exec.Command("/usr/bin/python3", "-c", "import sys, urllib.request, urllib.error\ntry: print(urllib.request.urlopen(sys.argv[1]).status)\nexcept urllib.error.HTTPError as e: print(e.code)", url)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
		cmd.Dir = "/"
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "403" {
			t.Errorf("another user sees the page: %v %s", err, out)
		}
	}
	// Another mount does not start where its figures cannot be served, and says so.
	dir := testDir(t)
	if err := os.Mkdir(filepath.Join(dir, "mnt"), 0o755); err != nil {
		t.Fatal(err)
	}
	failing(t, 1, []string{"serve metrics at " + address, "address already in use"},
		"mount", "--store", filepath.Join(dir, "store"), "--metrics", address, "--log-file", filepath.Join(dir, "log"), filepath.Join(dir, "mnt"))
	failing(t, 2, []string{"--metrics", "no port"}, "mount", "--metrics", "nowhere", filepath.Join(dir, "mnt"))

	m.condafs("upgrade")
	look()
	m.umount()
	if c, err := net.Dial("tcp", address); err == nil {
		t.Error(fmt.Errorf("it is served after the end: %w", c.Close()))
	}
}
