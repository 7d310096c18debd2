package meter

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"nixdaemon/localstore"
	"nixdaemon/localstore/gc"
	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/build"
	"nixdaemon/worker/substitute"
	"nixdaemon/worker/substitute/narinfocache"
)

// numbers are all members of all families, by name and labels in their order.
type numbers map[string]float64

func read(t testing.TB, m *Meter) numbers {
	t.Helper()
	text := text(t, m)
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	all := numbers{}
	for name, f := range families {
		for _, member := range f.Metric {
			key := name
			for _, l := range member.Label {
				key += " " + l.GetValue()
			}
			all[key] = valueOf(member)
		}
	}
	return all
}

// valueOf is a number, of a histogram its count.
func valueOf(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Histogram != nil:
		return float64(m.Histogram.GetSampleCount())
	}
	return m.Gauge.GetValue()
}

func text(t testing.TB, m *Meter) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := m.Registry.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (n numbers) want(t *testing.T, want numbers) {
	t.Helper()
	for key, value := range want {
		if got, there := n[key]; !there || got != value {
			t.Errorf("%s: got %v (%v), want %v", key, got, there, value)
		}
	}
}

type fakeServer struct{}

func (fakeServer) Connections() int                 { return 5 }
func (fakeServer) Busy() int                        { return 2 }
func (fakeServer) Traffic() (received, sent uint64) { return 10, 20 }

// full is a Meter that has met everything.
func full() *Meter {
	m := New("2.34.8", "abc")
	m.Serve(fakeServer{})
	m.Ask(Sources{
		Builds: func() build.Status {
			return build.Status{Slots: 8, Running: 3, Builds: []build.BuildStatus{{State: "running"}, {State: "queued"}, {State: "queued"}}}
		},
		Fetching: func() []substitute.FetchStatus { return make([]substitute.FetchStatus, 4) },
		Infos:    func() narinfocache.Stats { return narinfocache.Stats{Hits: 1, Absent: 2, Misses: 3} },
		Database: func() localstore.DatabaseStats {
			return localstore.DatabaseStats{Commits: 2, Changes: 6, BusyWaits: 1, BusyTime: time.Second, Size: 7, LogSize: 8}
		},
		Collecting: func() bool { return true },
		Disk:       func() (uint64, uint64, error) { return 100, 1000, nil },
	})
	m.Refused("policy")
	m.Privileged("repair", true, errors.New("no"))
	m.Privileged("repair", false, nil)
	c := m.Client("alice", true)
	for range 3 {
		c.OpBegan(protocol.OpIsValidPath)
		c.OpEnded(protocol.OpIsValidPath, nil)
	}
	c.OpBegan(protocol.OpSubmitOutput)
	c.OpEnded(protocol.OpSubmitOutput, errors.New("x"))
	c.OpBegan(99999)
	c.OpEnded(99999, errors.New("x"))
	m.Client("bob", false).Gone()
	now := time.Now()
	queued := build.QueuedBuild{For: build.ClientID{User: "alice"}, Time: now.Add(-3 * time.Second)}
	began, ended := now.Add(-2*time.Second), now
	m.BuildEnded(1, build.EndedBuild{QueuedBuild: queued, Began: began, Ended: ended, CPUUser: time.Second, LogSize: 9})
	m.BuildEnded(2, build.EndedBuild{QueuedBuild: queued, Began: began, Ended: ended, Machine: "ssh-ng://me:pw@far?x=y", Status: derivation.StatusTimedOut, Err: &build.Failure{Status: derivation.StatusTimedOut}})
	m.BuildEnded(3, build.EndedBuild{QueuedBuild: queued, Ended: ended, Err: errors.New("nobody wants it")})
	m.FetchEnded(substitute.Fetch{Path: storepath.Path{}, Cache: "https://u:p@cache/x", Began: began}, substitute.FetchEnd{Done: 50, Ended: ended})
	m.FetchEnded(substitute.Fetch{Cache: "https://cache/x", Began: began}, substitute.FetchEnd{Done: 1, Ended: ended, Err: errors.New("x")})
	m.CollectionEnded(gc.Collection{Action: gc.DeleteDead, Began: began}, gc.CollectionEnd{Paths: 4, BytesFreed: 44, Ended: ended})
	m.CollectionEnded(gc.Collection{Action: gc.ReturnDead, Began: began}, gc.CollectionEnd{Paths: 4, BytesFreed: 44, Ended: ended})
	return m
}

func TestNumbers(t *testing.T) {
	n := read(t, full())
	n.want(t, numbers{
		"nix_daemon_info 2.34.8 abc":  1,
		"nix_daemon_connections busy": 2, "nix_daemon_connections idle": 3,
		"nix_daemon_received_bytes_total": 10, "nix_daemon_sent_bytes_total": 20,
		"nix_daemon_connections_accepted_total true": 1, "nix_daemon_connections_accepted_total false": 1,
		"nix_daemon_connections_refused_total policy": 1, "nix_daemon_connection_duration_seconds": 1,
		"nix_daemon_operation_duration_seconds IsValidPath": 3, "nix_daemon_operation_failures_total IsValidPath": 0,
		"nix_daemon_operation_duration_seconds SubmitOutput": 1, "nix_daemon_operation_failures_total SubmitOutput": 1,
		"nix_daemon_operation_duration_seconds other": 1,
		"nix_daemon_user_connections alice":           1, "nix_daemon_user_connections bob": 0, "nix_daemon_user_connections other": 0,
		"nix_daemon_user_operations_total alice": 5, "nix_daemon_user_builds_total alice": 2, "nix_daemon_user_build_seconds_total alice": 4,
		"nix_daemon_builds running": 1, "nix_daemon_builds queued": 2, "nix_daemon_builds waiting": 0,
		"nix_daemon_build_slots": 8, "nix_daemon_build_slots_used": 3,
		"nix_daemon_builds_total Built local": 1, "nix_daemon_builds_total TimedOut ssh-ng://far": 1, "nix_daemon_builds_total Abandoned local": 1,
		"nix_daemon_build_duration_seconds built": 1, "nix_daemon_build_duration_seconds failed": 1, "nix_daemon_build_wait_seconds": 2,
		"nix_daemon_build_cpu_seconds_total user": 1, "nix_daemon_build_log_bytes_total": 9,
		"nix_daemon_substitutions_running": 4, "nix_daemon_substitutions_total https://cache/x done": 1, "nix_daemon_substitutions_total https://cache/x failed": 1,
		"nix_daemon_substitution_nar_bytes_total https://cache/x": 51, "nix_daemon_substitution_duration_seconds": 2,
		"nix_daemon_narinfo_cache_lookups_total hit": 1, "nix_daemon_narinfo_cache_lookups_total absent": 2, "nix_daemon_narinfo_cache_lookups_total miss": 3,
		"nix_daemon_database_commits_total": 2, "nix_daemon_database_changes_total": 6, "nix_daemon_database_busy_waits_total": 1,
		"nix_daemon_database_busy_seconds_total": 1, "nix_daemon_database_size_bytes": 7, "nix_daemon_database_log_bytes": 8,
		"nix_daemon_gc_running": 1, "nix_daemon_gc_runs_total delete-dead done": 1, "nix_daemon_gc_runs_total return-dead done": 1,
		"nix_daemon_gc_deleted_paths_total": 4, "nix_daemon_gc_freed_bytes_total": 44, "nix_daemon_gc_duration_seconds": 2,
		"nix_daemon_store_free_bytes": 100, "nix_daemon_store_size_bytes": 1000,
		"nix_daemon_privileged_actions_total repair refused": 1, "nix_daemon_privileged_actions_total repair done": 1,
	})
	for _, name := range []string{"process_cpu_seconds_total", "process_start_time_seconds", "process_open_fds", "process_max_fds",
		"process_resident_memory_bytes", "go_goroutines", "go_memstats_heap_alloc_bytes", "go_memstats_sys_bytes"} {
		if n[name] <= 0 {
			t.Errorf("%s is %v", name, n[name])
		}
	}
}

// TestNoSecrets: a cache's or a machine's password is shown to nobody.
func TestNoSecrets(t *testing.T) {
	for _, secret := range []string{"u:p", "me:pw", "x=y"} {
		if strings.Contains(text(t, full()), secret) {
			t.Errorf("%s is shown", secret)
		}
	}
}

func TestLint(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(text(t, full()))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestUsersAreBounded(t *testing.T) {
	m := New("", "")
	for i := range 3 * Members {
		m.Client(fmt.Sprint("user", i), false)
	}
	m.Client("bad\xffname", false)
	open, members := 0.0, 0
	for key, n := range read(t, m) {
		if strings.HasPrefix(key, "nix_daemon_user_connections ") {
			open += n
			members++
		}
	}
	if open != 3*Members+1 || members != Members+1 {
		t.Errorf("%v connections of %d users", open, members)
	}
}

const table = "../../../contrib/doc/metrics.md"

var update = flag.Bool("update", false, "write "+table)

// TestTable holds the table of metrics that people read to what there is.
func TestTable(t *testing.T) {
	var b strings.Builder
	b.WriteString(tableHead)
	m := full()
	for _, d := range m.Registry.Families() {
		labels := strings.Join(d.Labels, "`, `")
		if labels != "" {
			labels = "`" + labels + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.Name, d.Kind, labels, d.Help)
	}
	if *update {
		if err := os.WriteFile(table, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(have), b.String()); diff != "" {
		t.Errorf("go test ./daemon/status/meter -update writes the table anew:\n%s", diff)
	}
}

const tableHead = `# Metrics

In Prometheus' text format at ` + "`/metrics`" + ` of the status socket, which root and trusted users may read:

` + "```sh\n" + `curl --unix-socket /nix/var/nix/status-socket/socket http://localhost/metrics
` + "```\n" + `
and, with ` + "`metrics-listen-address = 127.0.0.1:9955`" + ` in ` + "`nix.conf`" + `, over TCP for whoever can reach that address: the numbers
hold names of users and of caches, no secrets. Numbers are of the server that runs; they begin anew when it is replaced,
and a server that only finishes its clients' requests is not asked.

Users, caches and machines are told apart up to 64 of each; what comes after them is ` + "`other`" + `.

| name | kind | labels | meaning |
|---|---|---|---|
`

// BenchmarkRequest is what counting costs a request, two looks at the clock
// included.
func BenchmarkRequest(b *testing.B) {
	c := New("", "").Client("alice", false)
	b.ReportAllocs()
	for b.Loop() {
		c.OpBegan(protocol.OpQueryPathInfo)
		c.OpEnded(protocol.OpQueryPathInfo, nil)
	}
}

func BenchmarkClock(b *testing.B) {
	for b.Loop() {
		_ = time.Since(epoch)
		_ = time.Since(epoch)
	}
}

func BenchmarkScrape(b *testing.B) {
	m := full()
	for b.Loop() {
		m.Registry.WriteTo(&bytes.Buffer{})
	}
}
