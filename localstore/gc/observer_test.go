package gc

import (
	"context"
	"errors"
	"testing"
)

// witness remembers what it is told of collections.
type witness struct {
	began []Collection
	ends  []CollectionEnd
}

var _ Observer = (*witness)(nil)

func (w *witness) CollectionBegan(c Collection)                  { w.began = append(w.began, c) }
func (w *witness) CollectionEnded(_ Collection, e CollectionEnd) { w.ends = append(w.ends, e) }

func TestObserver(t *testing.T) {
	f := newFixture(t, tower())
	f.root("r", 2)
	eye := &witness{}
	var c *Collector
	seen := map[string]*Progress{}
	c = New(Options{Store: f.Store, Observer: eye, Step: func(step string) error {
		seen[step] = c.Running()
		return nil
	}})
	if c.Running() != nil {
		t.Error("something runs")
	}
	req := wholeStore(DeleteDead)
	req.For = "alice"
	res, err := c.Collect(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	if len(eye.began) != 1 || eye.began[0].For != "alice" || eye.began[0].Action != DeleteDead || !eye.began[0].WholeStore || eye.began[0].Began.IsZero() {
		t.Errorf("told %+v", eye.began)
	}
	if len(eye.ends) != 1 || eye.ends[0].Paths != len(res.Paths) || eye.ends[0].BytesFreed != res.BytesFreed || eye.ends[0].Err != nil {
		t.Errorf("told %+v, want %d paths, %d bytes", eye.ends, len(res.Paths), res.BytesFreed)
	}
	for step, want := range map[string]string{"locked": "finding roots", "planned": "planning", "deleted": "deleting", "links": "deleting unused links"} {
		if p := seen[step]; p == nil || p.Step != want {
			t.Errorf("at %q: %+v, want %q", step, p, want)
		}
	}
	if p := seen["deleted"]; p.Dead != 4 || p.Deleted != 4 || p.BytesFreed != res.BytesFreed {
		t.Errorf("after deleting: %+v", p)
	}
	if c.Running() != nil {
		t.Error("something still runs")
	}
}

func TestObserverOfFailure(t *testing.T) {
	f := newFixture(t, tower())
	eye := &witness{}
	broken := errors.New("broken")
	c := New(Options{Store: f.Store, Observer: eye, Step: func(string) error { return broken }})
	if _, err := c.Collect(context.Background(), wholeStore(DeleteDead)); !errors.Is(err, broken) {
		t.Error(err)
	}
	if len(eye.ends) != 1 || !errors.Is(eye.ends[0].Err, broken) || c.Running() != nil {
		t.Errorf("told %+v", eye.ends)
	}
}
