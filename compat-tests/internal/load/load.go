// Package load has several clients at work on one daemon at once: they add, build, collect, optimise and ask. It
// remembers what was acknowledged to them as [Promise]s, so that after a crash of the daemon or of the machine [Load.Check]
// can tell whether all of it is kept.
//
// What a client wants to keep it makes a root of beforehand; everything else may be collected at any time. Each client
// does what its random numbers say, so a run with the same seed asks for the same things, though not in the same order.
package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// Options say what the clients do and where.
type Options struct {
	Socket   string
	StoreDir string
	StateDir string // roots are made beneath it
	Clients  int
	Seed     uint64 // also tells the names from those of other loads on the same store
	// Position numbers what happens to the disk; nil gives 0.
	Position func() int
	// Lossy says that the daemon is killed now and then, so that clients connect again.
	Lossy bool
	// Builds are the scripts that builders run with /bin/sh; none means no builds. Each has $out.
	Builds []string
	// Tolerate says which refusals are no fault; nil tolerates none.
	Tolerate func(refusal string) bool
	// Session is how many requests a client makes before it connects anew, which ends its temporary roots; 0 is 15.
	Session int
	// Deletes says that clients delete single paths, too.
	Deletes bool
}

// Promise is a path that was acknowledged.
type Promise struct {
	Path    storepath.Path
	NarHash nixhash.Hash
	// At and Position are when the acknowledgement had come; Released is the position from which on the path may be
	// collected, -1 for never.
	At                 time.Time
	Position, Released int

	root  string
	users int // paths that refer to it, and requests about it
}

// Load is a set of clients.
type Load struct {
	opts    Options
	memo    *derivation.Memo
	workers []*worker

	// Guards what follows.
	mu       sync.Mutex
	promises []*Promise
	hashes   map[storepath.Path]nixhash.Hash // of all that was ever to be added, promised or not
	counts   map[string]int
	refusals []error
}

// New makes the clients; they do nothing yet.
func New(o Options) *Load {
	if o.Position == nil {
		o.Position = func() int { return 0 }
	}
	if o.Session == 0 {
		o.Session = 15
	}
	if o.Tolerate == nil {
		o.Tolerate = func(string) bool { return false }
	}
	l := &Load{opts: o, memo: derivation.NewMemo(1000), hashes: make(map[storepath.Path]nixhash.Hash), counts: make(map[string]int)}
	for i := range o.Clients {
		l.workers = append(l.workers, &worker{Load: l, number: i, random: rand.New(rand.NewPCG(o.Seed, uint64(i)))})
	}
	return l
}

// Run has the clients work until the context ends; they go on where an earlier Run left off. The error tells what the daemon refused, which it should not have.
func (l *Load) Run(ctx context.Context) error {
	if err := os.MkdirAll(l.rootsDir(), 0o755); err != nil {
		return err
	}
	var clients sync.WaitGroup
	for _, w := range l.workers {
		clients.Go(func() { w.run(ctx) })
	}
	clients.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.refusals...)
}

func (l *Load) rootsDir() string { return filepath.Join(l.opts.StateDir, "gcroots", "load") }

// Promises are what was acknowledged so far.
func (l *Load) Promises() []Promise {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Promise, len(l.promises))
	for i, p := range l.promises {
		all[i] = *p
	}
	return all
}

// Counts tells how often each kind of request was done.
func (l *Load) Counts() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := make(map[string]int)
	for kind, n := range l.counts {
		counts[kind] = n
	}
	return counts
}

func (l *Load) refused(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	const enough = 20
	if len(l.refusals) < enough {
		l.refusals = append(l.refusals, err)
	}
}

// expect notes what a path's contents will be, if it ever becomes valid.
func (l *Load) expect(p storepath.Path, hash nixhash.Hash) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hashes[p] = hash
}

// promised notes an acknowledgement.
func (l *Load) promised(p storepath.Path, hash nixhash.Hash, root string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hashes[p] = hash
	if root == "" {
		return
	}
	l.promises = append(l.promises, &Promise{Path: p, NarHash: hash, At: time.Now(), Position: l.opts.Position(), Released: -1, root: root})
}

// pick gives a promise that is still kept, nil if there is none. It will not be released, unless unpick is called.
func (l *Load) pick(random *rand.Rand) *Promise {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range 8 {
		if len(l.promises) == 0 {
			return nil
		}
		p := l.promises[random.IntN(len(l.promises))]
		if p.Released >= 0 {
			continue
		}
		p.users++
		return p
	}
	return nil
}

func (l *Load) unpick(p *Promise) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.users--
}

// release lets a promise go: its root is removed.
func (l *Load) release(random *rand.Rand) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.promises) == 0 {
		return nil
	}
	p := l.promises[random.IntN(len(l.promises))]
	if p.Released >= 0 || p.users > 0 {
		return nil
	}
	p.Released = l.opts.Position()
	return os.Remove(p.root)
}

// worker is one client.
type worker struct {
	*Load
	number int
	random *rand.Rand
	client *client.Client
	loose  []storepath.Path // of ours, which nobody keeps
	serial int
}

func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.client = w.connect()
		for range w.opts.Session {
			if ctx.Err() != nil {
				break
			}
			if !w.request(ctx) {
				break
			}
		}
		w.client.Close()
	}
}

func (w *worker) connect() *client.Client {
	return client.New(client.Options{
		Dial: w.dial, Dir: storepath.Dir(w.opts.StoreDir), MaxConns: 1,
		Settings: &protocol.ClientOptions{MaxJobs: 2, Cores: 1, BuildVerbosity: 7, Verbosity: 0},
		Log:      activity.Discard{},
	})
}

// dial waits for a daemon that was killed to be back.
func (w *worker) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	for {
		conn, err := client.Unix(w.opts.Socket)(ctx)
		if err == nil || !w.opts.Lossy {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// request does something, and tells whether the connection is still good.
func (w *worker) request(ctx context.Context) bool {
	kind, do := w.choose()
	err := do(ctx)
	var refusal *protocol.Error
	switch {
	case err == nil:
		w.mu.Lock()
		w.counts[kind]++
		w.mu.Unlock()
		return true
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &refusal) && w.opts.Tolerate(refusal.Message):
	case refusal != nil || !w.opts.Lossy:
		w.refused(fmt.Errorf("client %d, %s: %w", w.number, kind, err))
	}
	return false
}

func (w *worker) choose() (string, func(context.Context) error) {
	type choice struct {
		weight int
		kind   string
		do     func(context.Context) error
	}
	choices := []choice{
		{40, "tree", w.addTree},
		{5, "large file", w.addLarge},
		{15, "text", w.addText},
		{15, "question", w.ask},
		{4, "release", func(context.Context) error { return w.release(w.random) }},
		{3, "collection", w.collect},
		{2, "optimisation", func(ctx context.Context) error { return w.client.Optimise(ctx) }},
		{2, "repair", w.repair},
	}
	if len(w.opts.Builds) > 0 {
		choices = append(choices, choice{12, "build", w.build})
	}
	if w.opts.Deletes {
		choices = append(choices, choice{4, "deletion", w.delete})
	}
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	n := w.random.IntN(total)
	for _, c := range choices {
		if n -= c.weight; n < 0 {
			return c.kind, c.do
		}
	}
	panic("weights do not add up")
}

// root makes a root of a path that is going to be added; "" for half of them, which nobody keeps.
func (w *worker) root(p storepath.Path) (string, error) {
	if w.random.IntN(2) == 0 {
		return "", nil
	}
	link := filepath.Join(w.rootsDir(), fmt.Sprintf("%d-%d-%d", w.opts.Seed, w.number, w.serial))
	err := os.Symlink(storepath.Dir(w.opts.StoreDir).Print(p), link)
	return link, err
}

func (w *worker) acknowledged(p storepath.Path, hash nixhash.Hash, root string) {
	w.promised(p, hash, root)
	if root == "" {
		w.loose = append(w.loose, p)
	}
}

func (w *worker) name(kind string) string {
	w.serial++
	return fmt.Sprintf("%s-%d-%d-%d", kind, w.opts.Seed, w.number, w.serial)
}
