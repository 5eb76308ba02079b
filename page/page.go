// Package page shows a daemon to people who have a browser: sessions, commits, packages, space, quarantine. It is rendered here and
// has no scripts. All that clients have named is escaped.
package page

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"condafs/control"
	"condafs/fault"
)

//go:embed *.html page.css
var files embed.FS

// API is what the page asks.
type API interface {
	Status(ctx context.Context) (*control.Status, error)
	Activity(ctx context.Context) (*control.Activity, error)
	Sessions(ctx context.Context) ([]control.Session, error)
	Packages(ctx context.Context) ([]control.Package, error)
	Log(ctx context.Context, limit int) ([]control.Commit, error)
}

var _ API = control.API(nil)

// Viewer is who looks at the page, by what that one may see.
type Viewer struct {
	API API
	All bool // everybody's: it is the store's owner, or root
}

type viewerKey struct{}

// For lets Handler answer as the viewer may see it.
func For(ctx context.Context, v Viewer) context.Context {
	return context.WithValue(ctx, viewerKey{}, v)
}

// How many lines of what can be many are shown.
const (
	mostCommits    = 30
	mostPackages   = 500
	mostLines      = 8 // of one commit
	mostQuarantine = 100
	largest        = 12 // packages on the overview
)

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"size": size, "ago": ago, "clean": clean, "share": share, "time": stamp, "used": used,
}).ParseFS(files, "*.html"))

// Handler serves the pages to requests that For has given a viewer.
func Handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", show("overview.html", overview))
	m.HandleFunc("GET /packages", show("packages.html", packages))
	m.HandleFunc("GET /page.css", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, "page.css")
	})
	return m
}

// show renders what get has found.
func show(name string, get func(r *http.Request, v Viewer) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, ok := r.Context().Value(viewerKey{}).(Viewer)
		if !ok {
			http.Error(w, "nobody says who asks", http.StatusForbidden)
			return
		}
		code := http.StatusOK
		data, err := get(r, v)
		if err != nil {
			name, data, code = "error.html", err, http.StatusInternalServerError
			if fault.Is(err, fault.Stale) || fault.Is(err, fault.Canceled) {
				code = http.StatusServiceUnavailable // the daemon stops, or another one takes over
			}
		}
		// Whole or not at all: half a page says nothing of its error.
		var b bytes.Buffer
		if err := templates.ExecuteTemplate(&b, name, data); err != nil {
			http.Error(w, "the page cannot be made: "+err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(code)
		_, _ = w.Write(b.Bytes()) // who has hung up does not want it
	}
}

// frame is what all pages show.
type frame struct {
	Title  string
	Status *control.Status
	All    bool
	Now    time.Time
}

type overviewData struct {
	frame
	Activity   *control.Activity // for the owner
	Sessions   []control.Session
	Commits    []commit
	Largest    []control.Package
	Packages   int
	Trust      []trusted
	Quarantine []control.Quarantine
	More       int // of quarantine, that is not shown
}

type commit struct {
	control.Commit
	More int // lines that are not shown
}

// trusted counts packages of one trust.
type trusted struct {
	Trust string
	Count int
	Bytes int64
}

func newFrame(ctx context.Context, title string, v Viewer) (frame, error) {
	st, err := v.API.Status(ctx)
	return frame{Title: title, Status: st, All: v.All, Now: time.Now()}, err
}

func overview(r *http.Request, v Viewer) (any, error) {
	ctx := r.Context()
	f, err := newFrame(ctx, "Overview", v)
	if err != nil {
		return nil, err
	}
	d := overviewData{frame: f}
	if v.All {
		if d.Activity, err = v.API.Activity(ctx); err != nil {
			return nil, err
		}
	}
	if d.Sessions, err = v.API.Sessions(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(d.Sessions, func(a, b control.Session) int { return b.Started.Compare(a.Started) })
	commits, err := v.API.Log(ctx, mostCommits)
	if err != nil {
		return nil, err
	}
	for _, c := range commits {
		x := commit{Commit: c}
		if n := len(c.What) - mostLines; n > 0 {
			x.What, x.More = c.What[:mostLines], n
		}
		d.Commits = append(d.Commits, x)
	}
	all, err := v.API.Packages(ctx)
	if err != nil {
		return nil, err
	}
	d.Packages, d.Trust = len(all), byTrust(all)
	slices.SortStableFunc(all, func(a, b control.Package) int { return cmp.Compare(bytesOf(b), bytesOf(a)) })
	d.Largest = all[:min(len(all), largest)]
	d.Quarantine = d.Status.Quarantine
	slices.SortFunc(d.Quarantine, func(a, b control.Quarantine) int { return b.Time.Compare(a.Time) })
	if n := len(d.Quarantine) - mostQuarantine; n > 0 {
		d.Quarantine, d.More = d.Quarantine[:mostQuarantine], n
	}
	return d, nil
}

type packagesData struct {
	frame
	Query    string
	Packages []control.Package
	Found    int
	All      int
	Bytes    int64
}

func packages(r *http.Request, v Viewer) (any, error) {
	f, err := newFrame(r.Context(), "Packages", v)
	if err != nil {
		return nil, err
	}
	all, err := v.API.Packages(r.Context())
	if err != nil {
		return nil, err
	}
	d := packagesData{frame: f, Query: r.URL.Query().Get("q"), All: len(all)}
	for _, p := range all {
		if d.Query != "" && !strings.Contains(strings.ToLower(p.Name), strings.ToLower(d.Query)) {
			continue
		}
		d.Found++
		d.Bytes += bytesOf(p)
		if len(d.Packages) < mostPackages {
			d.Packages = append(d.Packages, p)
		}
	}
	return d, nil
}

// bytesOf is what a package and its archive have, before sharing.
func bytesOf(p control.Package) int64 {
	if p.Archive != nil {
		return p.Size + p.Archive.Size
	}
	return p.Size
}

func byTrust(l []control.Package) []trusted {
	out := []trusted{{Trust: "verified"}, {Trust: "consistent"}, {Trust: "opaque"}}
	for _, p := range l {
		i := slices.IndexFunc(out, func(t trusted) bool { return t.Trust == p.Trust })
		if i < 0 {
			out = append(out, trusted{Trust: p.Trust})
			i = len(out) - 1
		}
		out[i].Count++
		out[i].Bytes += bytesOf(p)
	}
	return out
}
