package load

import (
	"context"
	"errors"
	"fmt"
	"io"

	"nixdaemon/protocol/client"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// Findings are what is wrong with a store.
type Findings struct {
	Valid   int      // paths
	Missing []string // kept promises whose paths are not valid
	Damaged []string // valid paths whose contents or metadata are not what was added, or cannot be read
}

// OK tells that nothing is wrong.
func (f *Findings) OK() bool { return len(f.Missing) == 0 && len(f.Damaged) == 0 }

func (f *Findings) String() string {
	return fmt.Sprintf("%d valid, %d missing: %q, %d damaged: %q", f.Valid, len(f.Missing), first(f.Missing), len(f.Damaged), first(f.Damaged))
}

func first(all []string) []string { return all[:min(len(all), 5)] }

// Check reads every valid path of a daemon, and looks whether it is as it was added and whether the promises are kept that
// must chooses.
func (l *Load) Check(ctx context.Context, socket string, must func(Promise) bool) (*Findings, error) {
	c := client.New(client.Options{Dial: client.Unix(socket), Dir: storepath.Dir(l.opts.StoreDir), MaxConns: 1})
	defer c.Close()
	all, err := c.AllValidPaths(ctx)
	if err != nil {
		return nil, err
	}
	f := &Findings{Valid: len(all)}
	valid := make(map[storepath.Path]bool, len(all))
	for _, p := range all {
		valid[p] = true
		if err := l.checkPath(ctx, c, p); err != nil {
			f.Damaged = append(f.Damaged, fmt.Sprintf("%s: %v", p, err))
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	for _, p := range l.Promises() {
		if must(p) && !valid[p.Path] {
			f.Missing = append(f.Missing, p.Path.String())
		}
	}
	return f, nil
}

func (l *Load) checkPath(ctx context.Context, c *client.Client, p storepath.Path) error {
	info, err := c.PathInfo(ctx, p)
	if err != nil {
		return err
	}
	if info == nil {
		return errors.New("is valid and has no metadata")
	}
	l.mu.Lock()
	want, known := l.hashes[p]
	l.mu.Unlock()
	if known && info.NarHash != want {
		return fmt.Errorf("is registered with hash %s, was added with %s", info.NarHash, want)
	}
	sum := nixhash.SHA256.New()
	size := new(counter)
	if err := c.Dump(ctx, p, io.MultiWriter(sum, size)); err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	if got := nixhash.FromSum(nixhash.SHA256, sum); got != info.NarHash || size.n != info.NarSize {
		return fmt.Errorf("has hash %s and size %d, is registered with %s and %d", got, size.n, info.NarHash, info.NarSize)
	}
	return nil
}

type counter struct{ n uint64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += uint64(len(p))
	return len(p), nil
}
