package metrics

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// monitoring is where the rules and the dashboard lie.
const monitoring = "../monitoring"

var (
	metricName = regexp.MustCompile(`\bcondafs_[a-z_]+`)
	recorded   = regexp.MustCompile(`\bcondafs:[a-z0-9_:]+`)
)

// known are the names under which Prometheus has what the daemon shows.
func known(t *testing.T) map[string]bool {
	names := map[string]bool{}
	for name, f := range gather(t, full{}) {
		names[name] = true
		if f.GetType().String() == "HISTOGRAM" {
			delete(names, name)
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				names[name+suffix] = true
			}
		}
	}
	return names
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(monitoring, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Rules and dashboard ask for nothing that the daemon does not show, and leave out nothing that matters.
func TestRulesAndDashboardAskForWhatIsThere(t *testing.T) {
	names, asked := known(t), map[string]bool{}
	rules := read(t, "alerts.yml")
	for _, file := range []string{"alerts.yml", "alerts_test.yml", "dashboard.json"} {
		for _, name := range metricName.FindAllString(read(t, file), -1) {
			asked[name] = true
			if !names[name] {
				t.Errorf("%s asks for %s, which is not shown", file, name)
			}
		}
		for _, name := range recorded.FindAllString(read(t, file), -1) {
			if !strings.Contains(rules, "record: "+name+"\n") {
				t.Errorf("%s asks for %s, which is not recorded", file, name)
			}
		}
	}
	seldom := []string{ // of no use in a graph or alert of their own
		"condafs_head", "condafs_views", "condafs_store_blobs", "condafs_package_bytes", "condafs_shelf_packages", "condafs_database_tables",
		"condafs_database_stale_bytes", "condafs_gc_freed_blobs_total", "condafs_gc_seconds_total", "condafs_gc_last_success_timestamp_seconds",
		"condafs_scrub_running",
	}
	for name := range names {
		if !asked[name] && !slices.Contains(seldom, name) {
			t.Errorf("neither rules nor dashboard ask for %s", name)
		}
	}
}

func TestDashboard(t *testing.T) {
	var d struct {
		Title  string
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	n := 0
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || (p.Type != "row") != (len(p.Targets) > 0) {
			t.Errorf("panel %d %q: its id is taken, or it has no title, or nothing to show", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%q is over %q, or too far right", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, q := range p.Targets {
			n++
			expr, err := json.Marshal(strings.NewReplacer("$__rate_interval", "5m", "$job", "j", "$instance", "i").Replace(q.Expr))
			if err != nil {
				t.Fatal(err)
			}
			rules.WriteString("  - record: d:" + strings.Repeat("x", n) + "\n    expr: " + string(expr) + "\n")
		}
	}
	if n < 20 {
		t.Errorf("%d questions only", n)
	}
	// Its expressions are PromQL: as the rules of a file, which promtool parses.
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

func TestRules(t *testing.T) {
	promtool(t, "check", "rules", filepath.Join(monitoring, "alerts.yml"))
	promtool(t, "test", "rules", filepath.Join(monitoring, "alerts_test.yml"))
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not here (Debian: prometheus)")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
