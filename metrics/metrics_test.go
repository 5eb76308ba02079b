package metrics

import (
	"context"
	"errors"
	"math"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"condafs/control"

	"net/http/httptest"
)

// full is a source with a figure for each metric.
type full struct{ err error }

var then = time.Unix(1_800_000_000, 0)

func (f full) Status(context.Context) (*control.Status, error) {
	return &control.Status{
		Version: "v1", StoreID: "id", Started: then, Head: 7, Blobs: 3, StoredBytes: 100, LogicalBytes: 300,
		Quarantine: make([]control.Quarantine, 2), QuarantinedBytes: 9, Shelf: &control.Shelf{Packages: 4},
		Runtime: &control.Runtime{Nodes: 11, Files: 12, Views: 13},
		Scrub: control.Scrub{Rate: 10, Running: true, Pass: &control.ScrubPass{Bytes: 5, Total: 50},
			Last: &control.ScrubPass{Finished: then, Found: 4, Mended: 2, Lost: 1, Left: 1}},
	}, f.err
}

func (f full) Activity(context.Context) (*control.Activity, error) {
	return &control.Activity{
		LatencyBounds: []float64{0.001, 0.1},
		Requests:      []control.RequestCount{{Op: "lookup", Count: 10, Seconds: 0.5, Buckets: []uint64{7, 2, 1}}},
		Errors:        []control.ErrnoCount{{Errno: "ENOENT", Count: 3}, {Errno: "EIO", Count: 1}},
		Started:       5, Explicit: 2,
		Published:   []control.PublishedCount{{Kind: "package", Trust: "verified", Units: 4, Bytes: 40}},
		Quarantined: 6, QuarantinedBytes: 60, Waits: 7, WaitedSecs: 8.5, Known: 3, Unpacked: 1,
		Packages:  []control.PackageCount{{Kind: "archive", Trust: "verified", Count: 2, Bytes: 20}},
		Database:  control.DatabaseState{Tables: 1, StaleBytes: 2, FileBytes: 3, TreesAsked: 10, TreeHits: 8},
		GC:        control.GCCount{Runs: 3, Failed: 1, Blobs: 5, Bytes: 6, Seconds: 7, Last: then},
		FreeBytes: 25, SizeBytes: 100,
	}, nil
}

func (f full) Sessions(context.Context) ([]control.Session, error) {
	return []control.Session{
		{Explicit: true, State: "active", OverlayBytes: 1}, {State: "active", OverlayBytes: 2}, {State: "waiting", OverlayBytes: 4}, {State: "waiting"},
	}, nil
}

func gather(t *testing.T, s Source) map[string]*dto.MetricFamily {
	t.Helper()
	r := prometheus.NewRegistry()
	if err := r.Register(&collector{s}); err != nil {
		t.Fatal(err)
	}
	l, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*dto.MetricFamily{}
	for _, f := range l {
		out[f.GetName()] = f
	}
	return out
}

// value finds the metric with these labels, as in "kind=package trust=verified".
func value(f *dto.MetricFamily, labels string) float64 {
	for _, m := range f.GetMetric() {
		var l []string
		for _, p := range m.GetLabel() {
			l = append(l, p.GetName()+"="+p.GetValue())
		}
		if strings.Join(l, " ") == labels {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return math.NaN()
}

func TestFigures(t *testing.T) {
	got := gather(t, full{})
	for _, x := range []struct {
		name, labels string
		want         float64
	}{
		{"info", "store=id version=v1", 1}, {"start_time_seconds", "", 1.8e9}, {"head", "", 7},
		{"request_errors_total", "errno=ENOENT", 3}, {"request_errors_total", "errno=EIO", 1}, {"request_errors_total", "errno=ENOSPC", 0},
		{"sessions_started_total", "kind=explicit", 2}, {"sessions_started_total", "kind=process", 3},
		{"sessions", "kind=explicit state=active", 1}, {"sessions", "kind=process state=waiting", 2}, {"overlay_bytes", "", 7},
		{"published_units_total", "kind=package trust=verified", 4}, {"published_bytes_total", "kind=package trust=verified", 40},
		{"quarantined_total", "", 6}, {"quarantine_entries", "", 2}, {"quarantine_bytes", "", 9},
		{"download_waits_total", "", 7}, {"download_wait_seconds_total", "", 8.5}, {"evidence_total", "result=known", 3},
		{"tree_cache_requests_total", "result=hit", 8}, {"tree_cache_requests_total", "result=miss", 2},
		{"packages", "kind=archive trust=verified", 2}, {"store_bytes", "", 100}, {"store_logical_bytes", "", 300}, {"shelf_packages", "", 4},
		{"gc_runs_total", "result=done", 2}, {"gc_runs_total", "result=failed", 1}, {"gc_last_success_timestamp_seconds", "", 1.8e9},
		{"scrub_running", "", 1}, {"scrub_pass_total_bytes", "", 50}, {"scrub_last_problems", "outcome=lost", 1},
		{"filesystem_free_bytes", "", 25}, {"kernel_nodes", "", 11}, {"open_files", "", 12}, {"views", "", 13},
	} {
		if v := value(got["condafs_"+x.name], x.labels); v != x.want {
			t.Errorf("condafs_%s{%s} is %v, want %v", x.name, x.labels, v, x.want)
		}
	}
	h := got["condafs_request_duration_seconds"].GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != 10 || h.GetSampleSum() != 0.5 || len(h.GetBucket()) != 2 || h.GetBucket()[0].GetCumulativeCount() != 7 || h.GetBucket()[1].GetCumulativeCount() != 9 {
		t.Errorf("histogram %v", h)
	}
	// Each description has a figure, so that none was forgotten above.
	if len(got) != len(descriptions) {
		t.Errorf("%d metrics, and %d descriptions", len(got), len(descriptions))
	}
}

func TestNamesAreGood(t *testing.T) {
	var l []*dto.MetricFamily
	for _, f := range gather(t, full{}) {
		l = append(l, f)
	}
	problems, err := promlint.NewWithMetricFamilies(l).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

func scrape(t *testing.T, s Source) *httptest.ResponseRecorder {
	t.Helper()
	r, err := NewRegistry(s)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w
}

func TestScrape(t *testing.T) {
	w := scrape(t, full{})
	for _, want := range []string{"condafs_head 7\n", "process_resident_memory_bytes ", "go_goroutines "} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q", want)
		}
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		cmd := exec.Command(promtool, "check", "metrics")
		cmd.Stdin = w.Body
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool check metrics: %v\n%s", err, out)
		}
	}
}

func TestOldFiguresAreNotShown(t *testing.T) {
	if w := scrape(t, full{errors.New("the store is closed")}); w.Code != 500 || !strings.Contains(w.Body.String(), "the store is closed") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
