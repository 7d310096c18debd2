package transfer

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// begin begins to enter; the result tells whether that is over, and how it went.
func (g *gate) begin(ctx context.Context, weight, limit uint64) chan error {
	done := make(chan error, 1)
	go func() { done <- g.enter(ctx, weight, limit) }()
	return done
}

func entered(done chan error) bool {
	synctest.Wait()
	select {
	case err := <-done:
		return err == nil
	default:
		return false
	}
}

// fill has two enter that leave no room for a third.
func (g *gate) fill(t *testing.T) {
	t.Helper()
	for range 2 {
		if !entered(g.begin(t.Context(), 5, 10)) {
			t.Fatal("no room where there is some")
		}
	}
}

// TestGate lets in as many as there is room for, who came first first, also past one who is lighter.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		ctx := t.Context()
		g.fill(t)
		heavy := g.begin(ctx, 5, 10)
		synctest.Wait()
		light := g.begin(ctx, 1, 11)
		if entered(heavy) || entered(light) {
			t.Fatal("more than there is room for, or out of turn")
		}
		if !entered(g.begin(ctx, 7, 0)) {
			t.Error("who has no limit waited")
		}
		g.leave(7)
		g.leave(5)
		if !entered(heavy) || !entered(light) {
			t.Errorf("room for two was not used; %d are in", g.used)
		}
		g.leave(5)
		g.leave(5)
		g.leave(1)
		if g.used != 0 || !entered(g.begin(ctx, 5, 1)) {
			t.Errorf("no room for one whose limit is small; %d are in", g.used)
		}
	})
}

// TestGateGivenUp has one who waits leave: who waited behind goes in.
func TestGateGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		why := errors.New("hung up")
		if !entered(g.begin(t.Context(), 6, 10)) {
			t.Fatal("no room")
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		first := g.begin(ctx, 5, 10)
		synctest.Wait()
		second := g.begin(t.Context(), 4, 10)
		if entered(second) {
			t.Fatal("out of turn")
		}
		cancel(why)
		if err := <-first; err != why {
			t.Errorf("who left: %v", err)
		}
		if !entered(second) || g.used != 10 {
			t.Errorf("who waited behind is not in; %d are", g.used)
		}
		if err := g.enter(ctx, 1, 100); err != nil || g.used != 11 {
			t.Errorf("who need not wait: %v", err)
		}
	})
}

// TestProbesAreBounded forgets servers that were not asked for longest.
func TestProbesAreBounded(t *testing.T) {
	w := newWorld(t)
	host := func(i int) string { return "h" + string(rune('0'+i)) }
	for i := range 2 * maxProbes {
		p, first := w.probe(host(i))
		if !first {
			t.Fatalf("server %d is known", i)
		}
		if i%2 == 0 {
			w.abandon(host(i), p)
			w.abandon(host(i), p)
			if _, again := w.probes[host(i)]; again {
				t.Fatal("a server without a connection is known")
			}
		}
		if len(w.probes) > maxProbes {
			t.Fatalf("%d servers are remembered", len(w.probes))
		}
	}
	if p, first := w.probe(host(2*maxProbes - 1)); first || p.http2 {
		t.Error("the last is forgotten, or said to speak HTTP/2")
	}
}

// TestGateTells says whether room that was given back is taken at once: then whoever gave it lets the other go first.
func TestGateTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		ctx := t.Context()
		g.fill(t)
		next := g.begin(ctx, 5, 10)
		synctest.Wait()
		if !g.giveBack(5) || !entered(next) {
			t.Error("nobody was let in")
		}
		for range 2 {
			if g.giveBack(5) {
				t.Error("somebody was let in of whom there is none")
			}
		}
		if g.used != 0 {
			t.Errorf("%d are in", g.used)
		}
	})
}
