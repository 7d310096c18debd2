package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/storepath"
)

// collections are the rows about roots and garbage.
func collections() []workload {
	return []workload{
		{name: "collect 20,000 dead paths", unit: "/s", prepare: fill(1), run: collect(20000)},
		{name: "mark 20,000 densely connected live paths", unit: "s", lessIsBetter: true, prepare: fillRooted, run: mark, read: seconds},
		{name: "collect a tree of 30,000 files", unit: "files/s", prepare: keepTree, run: collectTree},
		{name: "find 2,000 roots", unit: "ms", lessIsBetter: true, prepare: fillRoots, run: findRoots, read: milliseconds},
		meanwhile("queries", query),
		meanwhile("adds", addSomething),
	}
}

// meanwhile is a table of how long something takes while many paths are collected, and how long those take.
func meanwhile(name string, what func(context.Context, *client.Client, int, []storepath.Path) error) workload {
	return workload{
		name: name + " while 200,000 paths are collected, p99", unit: "ms", lessIsBetter: true,
		prepare: fillMuch, run: besideCollection(what),
		read: func(b *bench, _ float64, _ time.Duration) float64 { return b.state.(latencies).p99 },
		also: []string{"the same, p50", "the same, p99.9", "the same, the longest", "the collection beside them"},
		further: func(b *bench) []float64 {
			l := b.state.(latencies)
			return []float64{l.p50, l.p999, l.longest, l.collection}
		},
	}
}

// latencies are in milliseconds: what so many of a hundred took at most, the longest, and the collection beside them.
type latencies struct{ p50, p99, p999, longest, collection float64 }

// whole is a request about the whole store.
func whole(action protocol.GCAction) protocol.GCRequest {
	return protocol.GCRequest{Action: action, WholeStore: true, MaxFreed: math.MaxUint64}
}

func (b *bench) gc(action protocol.GCAction) (protocol.GCResults, error) {
	c := b.pool(1, 1)
	defer c.Close()
	return c.CollectGarbage(b.ctx, whole(action))
}

func collect(paths int) func(*bench) (float64, error) {
	return func(b *bench) (float64, error) {
		res, err := b.gc(protocol.GCDeleteDead)
		if want := b.n(paths); err == nil && len(res.Paths) != want {
			err = fmt.Errorf("%d paths deleted, not %d", len(res.Paths), want)
		}
		return float64(len(res.Paths)), err
	}
}

func collectTree(b *bench) (float64, error) {
	_, err := collect(1 * b.scale)(b)
	return float64(b.treeFiles()), err
}

// root makes a root of a path.
func (b *bench) root(name string, p storepath.Path) error {
	return os.Symlink(storepath.Dir(b.storeDir()).Print(p), filepath.Join(b.dir, "var/gcroots", name))
}

// fillRooted has all paths depend on one another, and the last be a root.
func fillRooted(b *bench) error {
	if err := fill(10)(b); err != nil {
		return err
	}
	paths := b.state.([]storepath.Path)
	return b.root("all", paths[len(paths)-1])
}

// mark finds nothing to collect.
func mark(b *bench) (float64, error) {
	res, err := b.gc(protocol.GCReturnDead)
	if err == nil && len(res.Paths) > 0 {
		err = fmt.Errorf("%d paths are dead", len(res.Paths))
	}
	return float64(b.n(20000)), err
}

// fillRoots makes 2,000 roots, half of them indirect.
func fillRoots(b *bench) error {
	if err := fill(1)(b); err != nil {
		return err
	}
	return b.links(b.state.([]storepath.Path), b.n(2000))
}

func (b *bench) links(paths []storepath.Path, n int) error {
	for i := range n {
		name := fmt.Sprintf("root-%d", i)
		if i%2 == 0 {
			if err := b.root(name, paths[i]); err != nil {
				return err
			}
			continue
		}
		link := filepath.Join(b.dir, "home", name)
		err := os.Symlink(storepath.Dir(b.storeDir()).Print(paths[i]), link)
		auto := filepath.Join(b.dir, "var/gcroots/auto")
		if err = errors.Join(err, os.MkdirAll(auto, 0o755), os.Symlink(link, filepath.Join(auto, name))); err != nil {
			return err
		}
	}
	return nil
}

func findRoots(b *bench) (float64, error) {
	c := b.pool(1, 1)
	defer c.Close()
	roots, err := c.Roots(b.ctx)
	if want := b.n(2000); err == nil && len(roots) < want {
		err = fmt.Errorf("%d roots found, not %d", len(roots), want)
	}
	return float64(len(roots)), err
}

// fillMuch imports 200,000 paths, a thousand of which are roots.
func fillMuch(b *bench) error {
	count := b.n(200000)
	additions, paths, err := tinies(b, count, 0)
	if err != nil {
		return err
	}
	b.state = paths[:b.n(1000)]
	c := b.pool(1, 1)
	defer c.Close()
	for part := range slices.Chunk(additions, 20000) {
		if err := c.AddMultiple(b.ctx, false, true, part); err != nil {
			return err
		}
	}
	return b.links(paths, b.n(1000))
}

// query asks for one of the paths that stay.
func query(ctx context.Context, c *client.Client, _ int, paths []storepath.Path) error {
	_, err := c.PathInfo(ctx, paths[rand.IntN(len(paths))])
	return err
}

// addSomething adds a text.
func addSomething(ctx context.Context, c *client.Client, i int, _ []storepath.Path) error {
	_, err := c.AddText(ctx, protocol.AddTextRequest{Name: "meanwhile", Text: fmt.Sprintf("text %d", i)})
	return err
}

// besideCollection repeats something while a collection runs, and leaves the latencies.
func besideCollection(what func(context.Context, *client.Client, int, []storepath.Path) error) func(*bench) (float64, error) {
	return func(b *bench) (float64, error) {
		paths := b.state.([]storepath.Path)
		c := b.pool(1, 1)
		defer c.Close()
		collected := make(chan error, 1)
		begin := time.Now()
		go func() {
			res, err := b.gc(protocol.GCDeleteDead)
			if err == nil && len(res.Paths) < b.n(200000)-len(paths) {
				err = fmt.Errorf("%d paths deleted", len(res.Paths))
			}
			collected <- err
		}()
		var took []time.Duration
		for i := 0; ; i++ {
			select {
			case err := <-collected:
				if err == nil && len(took) == 0 {
					err = errors.New("the collection was over before anything else was done")
				}
				if err != nil {
					return 0, err
				}
				b.state = latenciesOf(time.Since(begin), took)
				return float64(len(took)), nil
			default:
			}
			start := time.Now()
			if err := what(b.ctx, c, i, paths); err != nil {
				return 0, errors.Join(err, <-collected)
			}
			took = append(took, time.Since(start))
		}
	}
}

// latenciesOf sorts what each took beside a collection that took all.
func latenciesOf(all time.Duration, took []time.Duration) latencies {
	slices.Sort(took)
	at := func(part float64) float64 { return took[int(part*float64(len(took)-1))].Seconds() * 1000 }
	return latencies{p50: at(0.5), p99: at(0.99), p999: at(0.999), longest: at(1), collection: all.Seconds() * 1000}
}
