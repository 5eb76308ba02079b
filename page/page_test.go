package page

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"condafs/control"
	"condafs/fault"
)

const evil = `<script>alert(1)</script>"'><img src=x onerror=alert(1)>` + "\x1b[31m\u202e"

var day = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// world answers with one of everything, under hostile names.
type world struct {
	err      error
	packages int
}

func (w world) Status(context.Context) (*control.Status, error) {
	return &control.Status{
		Version: "v1", PID: 7, Started: day, MountPoint: "/m&n", Store: "/s", Head: 9, StoredBytes: 1 << 20, LogicalBytes: 4 << 20, Sessions: 1,
		Quarantine: []control.Quarantine{{ID: "q", Time: day, Path: "pkgs/" + evil, Reason: "because " + evil, Bytes: 5}}, QuarantinedBytes: 5,
		Scrub: control.Scrub{Rate: 1, Next: day, Last: &control.ScrubPass{Finished: day, Found: 3, Mended: 2, Lost: 1}},
	}, w.err
}

func (w world) Activity(context.Context) (*control.Activity, error) {
	return &control.Activity{FreeBytes: 25, SizeBytes: 100}, nil
}

func (w world) Sessions(context.Context) ([]control.Session, error) {
	return []control.Session{{ID: "abc", Label: "label " + evil, Command: "cmd " + evil, State: "active", Members: []int{3, 4}, Started: day, OverlayBytes: 2048}}, nil
}

func (w world) Packages(context.Context) ([]control.Package, error) {
	l := []control.Package{
		{Name: "small-1-0", Directory: "pkgs", Trust: "verified", Shared: true, Extracted: true, Size: 10},
		{Name: "big" + evil + "-1-0", Directory: "pkgs", Trust: "opaque", Owner: 1000, Archive: &control.Archive{Size: 3 << 30}},
	}
	for len(l) < w.packages {
		l = append(l, control.Package{Name: "many-1-0", Trust: "verified"})
	}
	return l, nil
}

func (w world) Log(context.Context, int) ([]control.Commit, error) {
	return []control.Commit{{Seq: 9, Time: day, UID: 1000, Label: evil, What: append(make([]string, mostLines), evil, evil)}}, nil
}

func get(t *testing.T, v Viewer, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	Handler().ServeHTTP(w, r.WithContext(For(r.Context(), v)))
	return w
}

// text reads a page: it must be well nested, without scripts and without any address elsewhere. It returns the text by the id of
// the section that it is in.
func text(t *testing.T, page string) map[string]string {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	out := map[string]string{}
	ids := []string{""}
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, page)
		}
		switch x := tok.(type) {
		case xml.StartElement:
			if name := x.Name.Local; name == "script" || name == "img" || name == "iframe" || name == "style" {
				t.Errorf("there is a <%s>", name)
			}
			id := ids[len(ids)-1]
			for _, a := range x.Attr {
				switch {
				case a.Name.Local == "id":
					id = a.Value
				case strings.HasPrefix(a.Name.Local, "on"), a.Name.Local == "style":
					t.Errorf("there is an attribute %s", a.Name.Local)
				case a.Name.Local == "href" || a.Name.Local == "src" || a.Name.Local == "action":
					if !strings.HasPrefix(a.Value, "/") || strings.HasPrefix(a.Value, "//") {
						t.Errorf("it leads to %s", a.Value)
					}
				}
			}
			ids = append(ids, id)
		case xml.EndElement:
			ids = ids[:len(ids)-1]
		case xml.CharData:
			out[ids[len(ids)-1]] += string(x) + " "
		}
	}
}

func TestOverview(t *testing.T) {
	w := get(t, Viewer{world{}, true}, "/")
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	got := text(t, w.Body.String())
	shown := `<script>alert(1)</script>"'><img src=x onerror=alert(1)>` + "\ufffd[31m\ufffd"
	for id, want := range map[string][]string{
		"space":      {"2", "1.0 MiB", "for 4.0 MiB of content : 25 %", "25 B", "3 found, 2 mended, 1 lost"},
		"sessions":   {"abc", "label " + shown, "cmd " + shown, "2.0 KiB", "active"},
		"commits":    {"9", "1000", shown, "… and 2 more"},
		"packages":   {"big" + shown + "-1-0", "3.0 GiB", "uid 1000", "small-1-0", "all"},
		"quarantine": {"pkgs/" + shown, "because " + shown, "5 B"},
		"trust":      {"verified", "consistent", "opaque"},
		"":           {"/m&n", "version v1, pid 7, store /s"},
	} {
		flat := strings.Join(strings.Fields(got[id]), " ")
		for _, s := range want {
			if !strings.Contains(flat, strings.Join(strings.Fields(s), " ")) && !strings.Contains(strings.ReplaceAll(flat, " ", ""), strings.ReplaceAll(s, " ", "")) {
				t.Errorf("no %q in %q: %s", s, id, flat)
			}
		}
	}
	if strings.Index(got["packages"], "big") > strings.Index(got["packages"], "small") {
		t.Error("the largest package is not the first")
	}
}

// Who is not the owner is not shown the disk, nor asked for what only the owner may ask.
func TestOthersOverview(t *testing.T) {
	got := text(t, get(t, Viewer{world{}, false}, "/").Body.String())
	if strings.Contains(got["space"], "25 B") || !strings.Contains(got[""], "you see what is yours") {
		t.Errorf("%v", got)
	}
}

func TestPackages(t *testing.T) {
	for query, want := range map[string]string{
		"":                 "2 of 2 packages, 3.0 GiB",
		"?q=SMALL":         "1 of 2 packages, 10 B",
		"?q=%22%3E%3Cb%3E": "0 of 2 packages",
	} {
		got := text(t, get(t, Viewer{world{}, true}, "/packages"+query).Body.String())
		if !strings.Contains(got["packages"], want) {
			t.Errorf("%s: no %q in %s", query, want, got["packages"])
		}
	}
	got := text(t, get(t, Viewer{world{packages: mostPackages + 5}, true}, "/packages").Body.String())
	if !strings.Contains(got["packages"], "the first 500 are shown") || strings.Count(got["packages"], "many-1-0") != mostPackages-2 {
		t.Error("not the first 500 are shown")
	}
}

func TestFailures(t *testing.T) {
	w := get(t, Viewer{world{err: fault.New("read "+evil, "", fault.Stale, errors.New("the store is closed"))}, true}, "/")
	if got := text(t, w.Body.String()); w.Code != http.StatusServiceUnavailable || !strings.Contains(got["error"], "the store is closed") {
		t.Errorf("%d %v", w.Code, got)
	}
	if w := get(t, Viewer{world{}, true}, "/nosuch"); w.Code != 404 {
		t.Errorf("%d", w.Code)
	}
	w = httptest.NewRecorder()
	Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != 403 {
		t.Errorf("without a viewer it is %d", w.Code)
	}
	if w := get(t, Viewer{}, "/page.css"); w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/css") {
		t.Errorf("the style: %d %v", w.Code, w.Header())
	}
}

func TestFormats(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1 << 62: "4096.0 PiB"} {
		if got := size(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-time.Hour: "now", 0: "now", 90 * time.Second: "1 min ago", 47 * time.Hour: "47 h ago", 72 * time.Hour: "3 days ago"} {
		if got := ago(day, day.Add(-d)); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	if share(1, 0) != 0 || share(3, 2) != 100 || share(1, 4) != 25 || ago(day, time.Time{}) != "never" {
		t.Error("shares")
	}
}
