// Package metrics counts, and tells what was counted in Prometheus' text format.
//
// A [Registry] holds families, each of one name, help and kind. A [Counter] only
// grows; a [Histogram] counts durations by buckets; both are atomic and cost a
// few nanoseconds. A [CounterVec] has one counter for each combination of label
// values, up to a bound: what would be one too many is counted as [Other], so
// that whoever chooses a label's values, a user's name or a cache's, cannot make
// us remember without end. [Registry.Func] families are asked when somebody
// reads.
//
// Prometheus' own Go library does the same and much more. It was measured: 3.8 MB
// of program, of which most is protocol buffers, and 1.5 ms of processor time for
// their tables at each start of the program, of which there is one for each
// builtin builder, remote copy and ssh session. Its parser and its linter check
// what this package writes, in tests.
package metrics

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what a family's numbers are.
type Kind string

// The kinds.
const (
	KindCounter   Kind = "counter"
	KindGauge     Kind = "gauge"
	KindHistogram Kind = "histogram"
)

// Desc describes a family.
type Desc struct {
	Name, Help string
	Kind       Kind
	// Labels are the names of what tells its members apart, besides the "le" of
	// histograms.
	Labels []string
}

// Registry holds families. Its methods may be called from any goroutine; the
// zero value is ready.
type Registry struct {
	mu       sync.Mutex
	families map[string]family
}

// family is one that can be written.
type family struct {
	Desc
	collect func(emit func(s sample))
}

// sample is a number with the values of its family's labels, and for histograms
// its buckets.
type sample struct {
	values  []string
	value   float64
	buckets *buckets
}

// add registers a family. A second one of the name is a mistake of ours.
func (r *Registry) add(d Desc, collect func(emit func(s sample))) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.families == nil {
		r.families = make(map[string]family)
	}
	if _, twice := r.families[d.Name]; twice {
		panic(fmt.Sprintf("metrics: %s is registered twice", d.Name))
	}
	r.families[d.Name] = family{d, collect}
}

// Families describes all, sorted by name.
func (r *Registry) Families() []Desc {
	var all []Desc
	for _, f := range r.sorted() {
		all = append(all, f.Desc)
	}
	return all
}

func (r *Registry) sorted() []family {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]family, 0, len(r.families))
	for _, f := range r.families {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b family) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Func registers a family whose numbers are asked for when somebody reads.
// collect calls emit for each member, with the values of the labels. It may be
// called from several goroutines.
func (r *Registry) Func(d Desc, collect func(emit func(value float64, labels ...string))) {
	r.add(d, func(emit func(sample)) {
		collect(func(value float64, labels ...string) { emit(sample{values: labels, value: value}) })
	})
}

// Gauge registers a number without labels.
func (r *Registry) Gauge(name, help string, read func() float64) {
	r.Func(Desc{Name: name, Help: help, Kind: KindGauge}, func(emit func(float64, ...string)) { emit(read()) })
}

// Count registers a sum without labels that is counted elsewhere.
func (r *Registry) Count(name, help string, read func() float64) {
	r.Func(Desc{Name: name, Help: help, Kind: KindCounter}, func(emit func(float64, ...string)) { emit(read()) })
}

// Counter is a sum: of things, or of time when AddDuration is used. One is used
// for one or the other.
type Counter struct {
	n       atomic.Uint64
	seconds bool
}

// Inc adds one.
func (c *Counter) Inc() { c.n.Add(1) }

// Add adds n.
func (c *Counter) Add(n uint64) { c.n.Add(n) }

// AddDuration adds time; less than none is none.
func (c *Counter) AddDuration(d time.Duration) { c.n.Add(uint64(max(d, 0))) }

// Value is the sum, of time in seconds.
func (c *Counter) Value() float64 {
	if c.seconds {
		return float64(c.n.Load()) / float64(time.Second)
	}
	return float64(c.n.Load())
}

// Counter registers a counter. One whose name ends in "_seconds_total" counts time.
func (r *Registry) Counter(name, help string) *Counter {
	c := &Counter{seconds: countsTime(name)}
	r.Count(name, help, c.Value)
	return c
}

func countsTime(name string) bool { return strings.HasSuffix(name, "_seconds_total") }

// DurationBuckets are bounds from ten microseconds to an hour and more.
var durationBuckets = []time.Duration{
	10 * time.Microsecond, 30 * time.Microsecond, 100 * time.Microsecond, 300 * time.Microsecond,
	time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond,
	300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second, 30 * time.Second,
	2 * time.Minute, 10 * time.Minute, time.Hour,
}

// Bounds gives the upper bounds of buckets between two durations, of those that
// all histograms have: a bit more than three for each power of ten.
func Bounds(least, most time.Duration) []time.Duration {
	var in []time.Duration
	for _, b := range durationBuckets {
		if b >= least && b <= most {
			in = append(in, b)
		}
	}
	return in
}

// Histogram counts durations.
type Histogram struct{ b *buckets }

// buckets are counts of durations up to each bound, and beyond all of them.
type buckets struct {
	bounds []time.Duration
	counts []atomic.Uint64
	sum    atomic.Uint64 // nanoseconds
}

func newBuckets(bounds []time.Duration) *buckets {
	return &buckets{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts a duration.
func (h Histogram) Observe(d time.Duration) {
	i := 0
	for i < len(h.b.bounds) && d > h.b.bounds[i] {
		i++
	}
	h.b.sum.Add(uint64(max(d, 0)))
	h.b.counts[i].Add(1)
}

// Count is how many durations were counted.
func (h Histogram) Count() (n uint64) {
	for i := range h.b.counts {
		n += h.b.counts[i].Load()
	}
	return n
}

// NewHistogram makes one that is not registered, for [Registry.Histograms].
func NewHistogram(bounds []time.Duration) Histogram { return Histogram{newBuckets(bounds)} }

// Histogram registers a histogram.
func (r *Registry) Histogram(name, help string, bounds []time.Duration) Histogram {
	h := NewHistogram(bounds)
	r.Histograms(Desc{Name: name, Help: help}, func(emit func(Histogram, ...string)) { emit(h) })
	return h
}

// Histograms registers a family of histograms that somebody else keeps.
func (r *Registry) Histograms(d Desc, collect func(emit func(h Histogram, labels ...string))) {
	d.Kind = KindHistogram
	r.add(d, func(emit func(sample)) {
		collect(func(h Histogram, labels ...string) { emit(sample{values: labels, buckets: h.b}) })
	})
}

// infinity bounds the last bucket.
var infinity = math.Inf(1)
