package metrics

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// parse reads the text with Prometheus' own parser.
func parse(t testing.TB, text string) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return families
}

func text(t testing.TB, r *Registry) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := r.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	var r Registry
	r.Counter("x_things_total", "Things, with a \\ and a\nline.").Add(3)
	r.Counter("x_work_seconds_total", "Time worked.").AddDuration(1500 * time.Millisecond)
	r.Gauge("x_free_bytes", "What is free.", func() float64 { return math.Inf(1) })
	v := r.CounterVec("x_by_name_total", "By name.", 0, "name", "kind")
	v.With("a\"\\\nb\xff", "k").Inc()
	v.With("A", "k").Inc()
	h := r.Histogram("x_wait_seconds", "Waiting.", Bounds(time.Millisecond, 10*time.Millisecond))
	for _, ms := range []int{-5, 1, 2, 10, 11} {
		h.Observe(time.Duration(ms) * time.Millisecond)
	}
	r.Func(Desc{Name: "x_none", Help: "Never there.", Kind: KindGauge}, func(func(float64, ...string)) {})
	want := `# HELP x_by_name_total By name.
# TYPE x_by_name_total counter
x_by_name_total{name="A",kind="k"} 1
x_by_name_total{name="a\"\\\nb` + "\ufffd" + `",kind="k"} 1
# HELP x_free_bytes What is free.
# TYPE x_free_bytes gauge
x_free_bytes +Inf
# HELP x_things_total Things, with a \\ and a\nline.
# TYPE x_things_total counter
x_things_total 3
# HELP x_wait_seconds Waiting.
# TYPE x_wait_seconds histogram
x_wait_seconds_bucket{le="0.001"} 2
x_wait_seconds_bucket{le="0.003"} 3
x_wait_seconds_bucket{le="0.01"} 4
x_wait_seconds_bucket{le="+Inf"} 5
x_wait_seconds_sum 0.024
x_wait_seconds_count 5
# HELP x_work_seconds_total Time worked.
# TYPE x_work_seconds_total counter
x_work_seconds_total 1.5
`
	got := text(t, &r)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	families := parse(t, got)
	if name := families["x_by_name_total"].Metric[1].Label[0].GetValue(); name != "a\"\\\nb\ufffd" {
		t.Errorf("a name came back as %q", name)
	}
	if n := families["x_wait_seconds"].Metric[0].Histogram.GetSampleCount(); n != 5 {
		t.Errorf("%d durations came back", n)
	}
	problems, err := promlint.New(strings.NewReader(got)).Lint()
	if err != nil || len(problems) != 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// TestMembersAreBounded: whoever chooses names cannot fill our memory, and
// nothing is lost from the sum.
func TestMembersAreBounded(t *testing.T) {
	var r Registry
	v := r.CounterVec("x_total", "x", 3, "user", "what")
	var wait sync.WaitGroup
	for g := range 8 {
		wait.Go(func() {
			for i := range 100 {
				v.With(fmt.Sprint(i), "x").Inc()
				if g == 0 && i%10 == 0 {
					r.WriteTo(io.Discard)
				}
			}
		})
	}
	wait.Wait()
	sum, members := 0.0, 0
	var others int
	for _, m := range parse(t, text(t, &r))["x_total"].Metric {
		sum += m.Counter.GetValue()
		members++
		if m.Label[0].GetValue() == Other && m.Label[1].GetValue() == Other {
			others++
		}
	}
	if sum != 800 || members != 4 || others != 1 {
		t.Errorf("sum %v of %d members, %d of them others", sum, members, others)
	}
}

func TestTwice(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("the same name twice")
		}
	}()
	var r Registry
	r.Counter("x_total", "")
	r.Counter("x_total", "")
}

func TestHTTP(t *testing.T) {
	var r Registry
	r.Counter("x_total", "x")
	for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(method, "/metrics", nil))
		if w.Code != want || method == "GET" && (w.Header().Get("Content-Type") != ContentType || !strings.Contains(w.Body.String(), "x_total 0")) {
			t.Errorf("%s: %d %q", method, w.Code, w.Body)
		}
		if method == "HEAD" && w.Body.Len() != 0 {
			t.Error("HEAD has a body")
		}
	}
}

func TestFamilies(t *testing.T) {
	var r Registry
	r.CounterVec("b_total", "B.", 0, "x")
	r.Histogram("a_seconds", "A.", nil)
	want := []Desc{{Name: "a_seconds", Help: "A.", Kind: KindHistogram}, {Name: "b_total", Help: "B.", Kind: KindCounter, Labels: []string{"x"}}}
	if diff := cmp.Diff(want, r.Families()); diff != "" {
		t.Error(diff)
	}
}

// FuzzLabel: whatever a name is, the text can be read.
func FuzzLabel(f *testing.F) {
	for _, s := range []string{"", "a", "\"", "\\n", "\n", "\xff", "a\\\"b\n} 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var r Registry
		r.CounterVec("x_total", s, 0, "l").With(s).Inc()
		m := parse(t, text(t, &r))["x_total"].Metric
		if len(m) != 1 || m[0].Label[0].GetValue() != strings.ToValidUTF8(s, "\ufffd") {
			t.Errorf("%q came back as %v", s, m)
		}
	})
}

func BenchmarkObserve(b *testing.B) {
	h := NewHistogram(Bounds(0, time.Hour))
	for b.Loop() {
		h.Observe(200 * time.Microsecond)
	}
}

func BenchmarkWith(b *testing.B) {
	var r Registry
	v := r.CounterVec("x_total", "x", 0, "user")
	b.ReportAllocs()
	for b.Loop() {
		v.With("alice").Inc()
	}
}
