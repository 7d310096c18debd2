package meter

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nixdaemon/daemon/status/metrics"
	"nixdaemon/protocol"
)

// Client is one connection. Its methods are called by the goroutine that serves
// it.
type Client struct {
	m     *Meter
	user  *user
	since time.Duration
	begun time.Duration

	// What it did, for its line in the log: requests, and those that failed.
	Requests, Failures uint64
}

// epoch makes times of differences, which are cheaper to take.
var epoch = time.Now()

// Client counts a client that was let in; its end is Gone.
func (m *Meter) Client(name string, trusted bool) *Client {
	m.accepted.With(strconv.FormatBool(trusted)).Inc()
	u := m.users.named(name)
	u.open.Add(1)
	return &Client{m: m, user: u, since: time.Since(epoch)}
}

// OpBegan notes when a request began.
func (c *Client) OpBegan(protocol.Op) { c.begun = time.Since(epoch) }

// OpEnded counts a request.
func (c *Client) OpEnded(op protocol.Op, err error) {
	o := c.m.operations.of(op)
	o.Observe(time.Since(epoch) - c.begun)
	c.Requests++
	c.user.requests.Inc()
	if err != nil {
		o.failures.Inc()
		c.Failures++
	}
}

// Gone counts the end of the connection, and gives how long it was.
func (c *Client) Gone() time.Duration {
	took := time.Since(epoch) - c.since
	c.m.connections.Observe(took)
	c.user.open.Add(-1)
	return took
}

// operations are counted in a place of their own each.
type operations [maxOp + 1]operation

type operation struct {
	metrics.Histogram
	failures metrics.Counter
}

// maxOp bounds the numbers that are counted; those of builders, from 1000 on,
// stand behind those of clients, and what is no request in place 0.
const maxOp = 63

const firstNested, nestedAt = 1000, 60

func (all *operations) of(op protocol.Op) *operation {
	switch {
	case op < nestedAt:
		return &all[op]
	case op >= firstNested && op <= firstNested+maxOp-nestedAt:
		return &all[op-firstNested+nestedAt]
	}
	return &all[0]
}

func opName(i int) string {
	op := protocol.Op(i)
	if i >= nestedAt {
		op += firstNested - nestedAt
	}
	if name := op.String(); name != "" {
		return name
	}
	return metrics.Other
}

func (all *operations) register(r *metrics.Registry) {
	for i := range all {
		all[i].Histogram = metrics.NewHistogram(metrics.Bounds(0, 10*time.Minute))
	}
	r.Histograms(metrics.Desc{Name: "nix_daemon_operation_duration_seconds", Labels: []string{"op"},
		Help: "How long requests took, from their first byte to the end of the answer, time that the client takes to send included."},
		func(emit func(metrics.Histogram, ...string)) {
			all.each(func(o *operation, name string) { emit(o.Histogram, name) })
		})
	r.Func(metrics.Desc{Name: "nix_daemon_operation_failures_total", Kind: metrics.KindCounter, Labels: []string{"op"},
		Help: "Requests that were answered with an error, or that ended the connection."},
		func(emit func(float64, ...string)) {
			all.each(func(o *operation, name string) { emit(o.failures.Value(), name) })
		})
}

// each goes over those that were ever asked for, once for each name.
func (all *operations) each(f func(o *operation, name string)) {
	for i := range all {
		if name := opName(i); all[i].Count() > 0 && (i == 0 || name != metrics.Other) {
			f(&all[i], name)
		}
	}
}

// user is what one user does.
type user struct {
	name     string
	open     atomic.Int64
	requests metrics.Counter
	builds   metrics.Counter
	building metrics.Counter // nanoseconds
}

// users are those who were ever connected.
type users struct {
	mu    sync.RWMutex
	known map[string]*user
	other user
}

// named gives a user, or what stands for all others.
func (u *users) named(name string) *user {
	name = strings.ToValidUTF8(name, "\ufffd")
	u.mu.RLock()
	one := u.known[name]
	u.mu.RUnlock()
	if one != nil {
		return one
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if one = u.known[name]; one != nil {
		return one
	}
	if len(u.known) >= Members || name == metrics.Other {
		return &u.other
	}
	if u.known == nil {
		u.known = make(map[string]*user)
	}
	one = &user{name: name}
	u.known[name] = one
	return one
}

func (u *users) all() []*user {
	u.mu.RLock()
	defer u.mu.RUnlock()
	all := make([]*user, 0, len(u.known)+1)
	for _, one := range u.known {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b *user) int { return strings.Compare(a.name, b.name) })
	return append(all, &u.other)
}

func (u *users) register(r *metrics.Registry) {
	u.other.name = metrics.Other
	family := func(name, help string, kind metrics.Kind, value func(*user) float64) {
		r.Func(metrics.Desc{Name: name, Help: help, Kind: kind, Labels: []string{"user"}}, func(emit func(float64, ...string)) {
			for _, one := range u.all() {
				emit(value(one), one.name)
			}
		})
	}
	family("nix_daemon_user_connections", "Clients that are connected, by user.", metrics.KindGauge,
		func(o *user) float64 { return float64(o.open.Load()) })
	family("nix_daemon_user_operations_total", "Requests, by user.", metrics.KindCounter,
		func(o *user) float64 { return o.requests.Value() })
	family("nix_daemon_user_builds_total", "Builds whose builders ran, by the user who wanted them first.", metrics.KindCounter,
		func(o *user) float64 { return o.builds.Value() })
	family("nix_daemon_user_build_seconds_total", "Time for which they ran.", metrics.KindCounter,
		func(o *user) float64 { return o.building.Value() / float64(time.Second) })
}
