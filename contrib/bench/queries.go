package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// connects logs in, asks once and hangs up, over and over.
func connects(clients int) func(*bench) (float64, error) {
	return func(b *bench) (float64, error) {
		each := b.n(2000) / clients
		err := parallel(clients, func(int) error {
			for range each {
				c := b.pool(1, 1)
				if _, err := c.PathFromHashPart(b.ctx, strings.Repeat("0", 32)); err != nil {
					return err
				}
				c.Close()
			}
			return nil
		})
		return float64(each * clients), err
	}
}

// parallel runs f in so many goroutines.
func parallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { errs[i] = f(i) })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// idleConnections measures what a hundred of them add to the daemon.
func idleConnections(b *bench) (float64, error) {
	before := b.memory()
	conns := make([]*client.Conn, 100)
	for i := range conns {
		o := b.pool(1, 1)
		defer o.Close()
		var err error
		if conns[i], err = client.Open(b.ctx, b.options()); err != nil {
			return 0, err
		}
		defer conns[i].Close()
	}
	b.state = (b.memory() - before) / float64(len(conns)) / 1000
	return 1, nil
}

// stored is a figure that the run left behind.
func stored(b *bench, _ float64, _ time.Duration) float64 { return b.state.(float64) }

// tiny makes the NAR of a small file and the metadata of a path that holds it.
func tiny(b *bench, i int, refs []storepath.Path) (client.Addition, error) {
	text := fmt.Sprintf("tiny %d", i)
	var archive bytes.Buffer
	w := nar.NewWriter(&archive)
	if err := errors.Join(w.Regular("", false, uint64(len(text)), strings.NewReader(text)), w.Close()); err != nil {
		return client.Addition{}, err
	}
	hash := nixhash.Of(nixhash.SHA256, archive.String())
	dir := storepath.Dir(b.storeDir())
	p, err := dir.MakePath("output:out", nixhash.Of(nixhash.SHA256, text), fmt.Sprintf("tiny-%d", i))
	return client.Addition{
		Info: &pathinfo.Info{Path: p, NarHash: hash, NarSize: uint64(archive.Len()), References: refs, RegistrationTime: 1},
		NAR:  bytes.NewReader(archive.Bytes()),
	}, err
}

// tinies makes so many paths, each referring to the refs before it.
func tinies(b *bench, count, refs int) ([]client.Addition, []storepath.Path, error) {
	additions := make([]client.Addition, count)
	paths := make([]storepath.Path, count)
	for i := range additions {
		var err error
		before := storepath.SortUnique(append([]storepath.Path{}, paths[max(0, i-refs):i]...))
		if additions[i], err = tiny(b, i, before); err != nil {
			return nil, nil, err
		}
		paths[i] = additions[i].Info.Path
	}
	return additions, paths, nil
}

// fill imports 20,000 paths.
func fill(refs int) func(*bench) error {
	return func(b *bench) error {
		additions, paths, err := tinies(b, b.n(20000), refs)
		if err != nil {
			return err
		}
		b.state = paths
		c := b.pool(1, 1)
		defer c.Close()
		return c.AddMultiple(b.ctx, false, true, additions)
	}
}

// fillAndForget imports 20,000 paths and starts the daemon anew.
func fillAndForget(refs int) func(*bench) error {
	return func(b *bench) error {
		if err := fill(refs)(b); err != nil {
			return err
		}
		return b.restart(b.ctx)
	}
}

func pathInfo(clients int) func(*bench) (float64, error) {
	return func(b *bench) (float64, error) {
		return each(b, clients, protocol.OpQueryPathInfo, skipPathInfo)
	}
}

// skipPathInfo takes the metadata of a valid path off the stream without
// making anything of them: see archive.
func skipPathInfo(r *protocol.Reader) error {
	valid, err := r.Bool()
	if err == nil && !valid {
		err = errors.New("path is not valid")
	}
	lists := func(strings, numbers uint64) {
		for range strings {
			err = errors.Join(err, skipString(r))
		}
		_, e := r.Discard(int(8 * numbers))
		err = errors.Join(err, e)
	}
	count := func() uint64 {
		n, e := r.Uint64()
		err = errors.Join(err, e)
		return n
	}
	lists(2, 0)       // deriver, hash
	lists(count(), 3) // references; times, size, ultimate
	lists(count(), 0) // signatures
	lists(1, 0)       // content address
	return err
}

func skipString(r *protocol.Reader) error {
	n, err := r.Uint64()
	if err == nil {
		_, err = r.Discard(int(n+7) &^ 7)
	}
	return err
}

func skipNumber(r *protocol.Reader) error {
	_, err := r.Uint64()
	return err
}

// each asks about every path, shared among so many clients, each with a
// connection of its own.
func each(b *bench, clients int, op protocol.Op, skip func(*protocol.Reader) error) (float64, error) {
	paths := b.state.([]storepath.Path)
	share := len(paths) / clients
	err := parallel(clients, func(i int) error {
		c, err := client.Open(b.ctx, b.options())
		if err != nil {
			return err
		}
		defer c.Close()
		for _, p := range paths[i*share : (i+1)*share] {
			if err := c.Call(op, func(w *protocol.Writer) { w.StorePath(p) }, skip); err != nil {
				return err
			}
		}
		return nil
	})
	return float64(share * clients), err
}

func validity(b *bench) (float64, error) {
	return each(b, 1, protocol.OpIsValidPath, skipNumber)
}

func tempRoots(b *bench) (float64, error) {
	return each(b, 1, protocol.OpAddTempRoot, skipNumber)
}

// fillSorted leaves the paths as requests have them.
func fillSorted(refs int) func(*bench) error {
	return func(b *bench) error {
		err := fill(refs)(b)
		if err == nil {
			b.state = storepath.SortUnique(b.state.([]storepath.Path))
		}
		return err
	}
}

func validPaths(b *bench) (float64, error) {
	c, err := client.Open(b.ctx, b.options())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	paths := b.state.([]storepath.Path)
	return float64(len(paths)), c.Call(protocol.OpQueryValidPaths, func(w *protocol.Writer) {
		w.StorePaths(paths)
		if w.Version.AtLeast(27) {
			w.Bool(false)
		}
	}, func(r *protocol.Reader) error { return skipPaths(r, len(paths)) })
}

// skipPaths takes so many paths off the stream without making anything of
// them.
func skipPaths(r *protocol.Reader, want int) error {
	n, err := r.Uint64()
	if err == nil && n != uint64(want) {
		err = fmt.Errorf("%d of %d paths are valid", n, want)
	}
	for i := 0; i < want && err == nil; i++ {
		err = skipString(r)
	}
	return err
}

// imports makes what importBatch and importSingly send.
func imports(count int) func(*bench) error {
	return func(b *bench) error {
		additions, _, err := tinies(b, b.n(count), 1)
		b.state = additions
		return err
	}
}

func importBatch(b *bench) (float64, error) {
	additions := b.state.([]client.Addition)
	c := b.pool(1, 1)
	defer c.Close()
	return float64(len(additions)), c.AddMultiple(b.ctx, false, true, additions)
}

func importSingly(b *bench) (float64, error) {
	additions := b.state.([]client.Addition)
	c := b.pool(1, 1)
	defer c.Close()
	for _, a := range additions {
		if err := c.AddNAR(b.ctx, protocol.AddToStoreNarRequest{Info: a.Info, DontCheckSigs: true}, a.NAR); err != nil {
			return 0, err
		}
	}
	return float64(len(additions)), nil
}

// texts adds 1.5 KB texts, as instantiation does.
func texts(clients int) func(*bench) (float64, error) {
	return func(b *bench) (float64, error) {
		share := b.n(4000) / clients
		err := parallel(clients, func(i int) error {
			c := b.pool(1, 1)
			defer c.Close()
			for j := range share {
				text := fmt.Sprintf("text %d of client %d\n%s", j, i, strings.Repeat("contents ", 166))
				_, err := c.AddToStore(b.ctx, protocol.AddToStoreRequest{
					Name: fmt.Sprintf("text-%d-%d", i, j), MethodAlgo: "text:sha256",
				}, strings.NewReader(text))
				if err != nil {
					return err
				}
			}
			return nil
		})
		return float64(share * clients), err
	}
}
