package meter

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"nixdaemon/daemon/status/metrics"
)

var (
	metricName = regexp.MustCompile(`\b(?:nix_daemon|process|go)_[a-z_]+`)
	byLabels   = regexp.MustCompile(`by \(([a-z_, ]*)\)`)
	inLegend   = regexp.MustCompile(`\{\{([a-z_]+)\}\}`)
)

// TestDashboard holds the queries of the dashboard to metrics that exist, and
// what they group by and show to labels of theirs. All but Go's own are shown.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../../../contrib/grafana/nix-daemon.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Templating struct {
			List []struct{ Query string }
		}
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	there := map[string]metrics.Desc{}
	m := full()
	for _, d := range m.Registry.Families() {
		there[d.Name] = d
	}
	shown := map[string]bool{}
	for _, v := range board.Templating.List {
		for _, name := range metricName.FindAllString(v.Query, -1) {
			shown[familyOf(t, "variables", name, there).Name] = true
		}
	}
	queries := 0
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			queries++
			names := metricName.FindAllString(target.Expr, -1)
			if len(names) == 0 {
				t.Errorf("%s: no metric in %s", p.Title, target.Expr)
			}
			labels := []string{"le"}
			for _, name := range names {
				d := familyOf(t, p.Title, name, there)
				shown[d.Name] = true
				labels = append(labels, d.Labels...)
				if rate := strings.Contains(target.Expr, "rate("+name); rate == (d.Kind == metrics.KindGauge) {
					t.Errorf("%s: %s is a %s", p.Title, name, d.Kind)
				}
			}
			var used []string
			for _, by := range byLabels.FindAllStringSubmatch(target.Expr, -1) {
				used = append(used, strings.Split(by[1], ", ")...)
			}
			for _, l := range inLegend.FindAllStringSubmatch(target.LegendFormat, -1) {
				used = append(used, l[1])
			}
			for _, l := range used {
				if !slices.Contains(labels, l) {
					t.Errorf("%s: there is no label %s", p.Title, l)
				}
			}
		}
	}
	if queries < 30 {
		t.Errorf("%d queries", queries)
	}
	for name := range there {
		if strings.HasPrefix(name, "nix_daemon_") && !shown[name] && !slices.Contains(notShown, name) {
			t.Errorf("%s is not shown", name)
		}
	}
}

// notShown are those of which another metric shows the same, or more.
var notShown = []string{
	"nix_daemon_connection_duration_seconds", "nix_daemon_user_operations_total", "nix_daemon_user_builds_total",
	"nix_daemon_gc_deleted_paths_total", "nix_daemon_gc_duration_seconds", "nix_daemon_database_busy_waits_total",
}

func familyOf(t *testing.T, where, name string, there map[string]metrics.Desc) metrics.Desc {
	t.Helper()
	if d, ok := there[name]; ok && d.Kind != metrics.KindHistogram {
		return d
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		base, cut := strings.CutSuffix(name, suffix)
		if d, ok := there[base]; cut && ok && d.Kind == metrics.KindHistogram {
			return d
		}
	}
	t.Errorf("%s: there is no metric %s", where, name)
	return metrics.Desc{}
}
