package gc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/localstore/pathlock"
	"nixdaemon/localstore/roots"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
)

// Store is what a collector needs of a store; *localstore.Store is one.
type Store interface {
	Dir() storepath.Dir
	RealDir() string
	StateDir() string
	// Graph gives a snapshot of all valid paths and their references.
	Graph(ctx context.Context, o db.GraphOptions) (*db.Graph, error)
	ValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error)
	Referrers(ctx context.Context, p storepath.Path) ([]storepath.Path, error)
	// TempRootPaths gives the temporary roots of this process.
	TempRootPaths() ([]storepath.Path, error)
	// TellRoots has roots of this process told to the collection that runs, by the hash parts of their paths: tell does not
	// wait, and if it is false the root is to be told as those of other processes are. Nil ends that.
	TellRoots(tell func(hashPart string) bool)
	// HoldRoot makes a path a temporary root of this process for some seconds.
	HoldRoot(p storepath.Path) error
	// DropRows makes the first of the paths invalid in one transaction, as many as there is time for, and tells how many;
	// rows are theirs by the graph. It fails if one has referrers but itself and those before it.
	DropRows(ctx context.Context, paths []storepath.Path, rows db.Rows) (done int, err error)
	// SyncDropped returns once not even a power cut can make those paths valid again.
	SyncDropped() error
	// Tidy has space given back that the database does not need any more, if that costs little and nobody waits. It
	// returns at once.
	Tidy()
	// Reserve puts space aside for the next collection, as much as there is.
	Reserve()
	// DeleteTree deletes what is at a place and tells how many bytes that freed.
	DeleteTree(ctx context.Context, realPath string) (uint64, error)
}

// Overlay is a Store whose directory shows what another one beneath it has, too; localstore.Upper is one. What it gives as
// referrers has rows, and it deletes nothing of the other one.
type Overlay interface {
	Store
	// AdoptAll makes rows of what the other store has and the directory shows. What nothing needs loses them again, so
	// that it is collected like the rest, as far as others can see.
	AdoptAll(ctx context.Context) error
	// Adopt makes rows of what the other store has of the paths, with their outputs and derivers if those count.
	Adopt(ctx context.Context, paths []storepath.Path, outputs, derivers bool) error
	// Remount is called at the end.
	Remount(ctx context.Context, log activity.Sink) error
}

// Options say how a collector works.
type Options struct {
	Store Store
	// UseRootsDaemon asks the program at gc-roots-socket/socket, within the state directory, what running programs use,
	// instead of the system (store parameter use-roots-daemon).
	UseRootsDaemon bool
	// IgnoreDeleteFailure makes files that cannot be deleted a warning (store parameter ignore-gc-delete-failure).
	IgnoreDeleteFailure bool
	// Log receives what concerns the store's owner: a line for each collection, and why it kept what was dead. Nil drops it.
	Log activity.Sink
	// Step, if not nil, is called after each step of a collection with the step's name: "locked", "roots", "planned",
	// "claimed", "invalidated", "deleted", "links". If it fails the collection ends there.
	Step func(name string) error
	// Observer is told of collections; nil if nobody wants to know.
	Observer Observer
}

// Collector finds roots and collects garbage in one store. Its methods may be called from any goroutine; collections
// take turns.
type Collector struct {
	o    Options
	turn chan struct{} // holds one element while a collection runs
	shown
}

// New gives a collector.
func New(o Options) *Collector {
	if o.Step == nil {
		o.Step = func(string) error { return nil }
	}
	if o.Log == nil {
		o.Log = activity.Discard{}
	}
	return &Collector{o: o, turn: make(chan struct{}, 1)}
}

// FindRoots gives what keeps paths alive, and tells log of links that it removes. With censor the labels of temporary
// and runtime roots are left out.
func (c *Collector) FindRoots(ctx context.Context, censor bool, log activity.Sink) (roots.Roots, error) {
	if log == nil {
		log = activity.Discard{}
	}
	o := c.rootOptions(log)
	o.Censor = censor
	return roots.Find(ctx, o)
}

func (c *Collector) rootOptions(log activity.Sink) roots.Options {
	helper := ""
	if c.o.UseRootsDaemon {
		helper = filepath.Join(c.o.Store.StateDir(), "gc-roots-socket", "socket")
	}
	return roots.Options{
		HelperSocket: helper,
		Dir:          c.o.Store.Dir(),
		StateDir:     c.o.Store.StateDir(),
		Valid:        c.o.Store.ValidPaths,
		InProcess:    c.o.Store.TempRootPaths,
		Log:          log,
	}
}

// Collect carries out a request. When it fails, or ctx ends, the results tell what was deleted until then.
func (c *Collector) Collect(ctx context.Context, req Request) (Results, error) {
	if req.Log == nil {
		req.Log = activity.Discard{}
	}
	if !req.WholeStore && len(req.Paths) == 0 {
		return Results{}, nil
	}
	if req.WholeStore && req.Action == DeleteSpecific {
		return Results{}, errors.New("Cannot delete the entire store")
	}
	if req.Action.deletes() {
		reserved := filepath.Join(c.o.Store.StateDir(), "db", "reserved")
		if err := os.Remove(reserved); err != nil && !errors.Is(err, os.ErrNotExist) {
			return Results{}, fmt.Errorf("free reserved space: %w", err)
		}
	}
	if err := reserveSocket(filepath.Join(c.o.Store.StateDir(), socketName)); err != nil {
		return Results{}, fmt.Errorf("reserve socket for roots: %w", err)
	}
	unlock, err := c.lock(ctx, req.Log)
	if err != nil {
		return Results{}, err
	}
	defer unlock()
	if req.Action.deletes() {
		defer c.o.Store.Reserve()
	}
	if req.Needed != nil {
		if req.MaxFreed, err = req.Needed(); req.MaxFreed == 0 || err != nil {
			return Results{}, err
		}
	}
	r := &run{Collector: c, req: req, dir: c.o.Store.Dir(), claims: newClaims(), account: account{begun: time.Now()}}
	hide := c.show(r)
	err = r.collect(ctx)
	if o, ok := c.o.Store.(Overlay); ok && err == nil {
		err = o.Remount(ctx, req.Log)
	}
	hide(err)
	if req.Action.deletes() {
		r.report(err)
	}
	if req.Action.deletes() && len(r.results.Paths) > 0 {
		c.o.Store.Tidy()
	}
	return r.results, err
}

// lock waits for our own collections, then for those of other processes.
func (c *Collector) lock(ctx context.Context, log activity.Sink) (unlock func(), err error) {
	told := false
	wait := func() {
		if !told {
			log.Message(activity.Info, "waiting for the big garbage collector lock...")
		}
		told = true
	}
	select {
	case c.turn <- struct{}{}:
	default:
		wait()
		select {
		case c.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	file, err := pathlock.OpenLockFile(filepath.Join(c.o.Store.StateDir(), "gc.lock"), true)
	if err == nil {
		if err = pathlock.Flock(ctx, file, pathlock.Exclusive, wait); err != nil {
			file.Close()
		}
	}
	if err != nil {
		<-c.turn
		return nil, err
	}
	return func() { file.Close(); <-c.turn }, nil
}

// run is one collection, under the lock.
type run struct {
	*Collector
	req    Request
	dir    storepath.Dir
	claims *claims
	sight  *sight

	results Results // guarded by the executor while that runs
	account account
}

func (r *run) info(format string, args ...any) {
	r.req.Log.Message(activity.Info, fmt.Sprintf(format, args...))
}

func (r *run) debug(format string, args ...any) {
	r.req.Log.Message(activity.Debug, fmt.Sprintf(format, args...))
}

func (r *run) collect(ctx context.Context) error {
	if err := r.o.Step("locked"); err != nil {
		return err
	}
	server, err := serve(filepath.Join(r.o.Store.StateDir(), socketName), r.dir, r.claims, r.o.Store.HoldRoot, r.req.Log)
	if err != nil {
		return err
	}
	defer server.close()
	r.o.Store.TellRoots(r.claims.tryClaim)
	defer r.o.Store.TellRoots(nil)
	found, release, err := r.findRoots(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := r.o.Step("roots"); err != nil {
		return err
	}
	r.sight.step.Store("planning")
	if !r.req.WholeStore || r.req.MaxFreed > 0 {
		if err := r.sweep(ctx, found); err != nil {
			return err
		}
	}
	if !r.req.Action.deletes() {
		return nil
	}
	r.sight.step.Store("deleting unused links")
	return r.deleteUnusedLinks(ctx)
}

// findRoots gives the roots to begin with. No permanent root can be made any more without a temporary one, and every
// temporary one from now on is heard of through the socket; those of old releases wait until release is called.
func (r *run) findRoots(ctx context.Context) (found roots.Roots, release func(), err error) {
	r.info("finding garbage collector roots...")
	o := r.rootOptions(r.req.Log)
	o.Censor = true
	// Temporary roots first: whoever made a path valid and a root of it may let go of its temporary root from then on, and
	// a permanent root counts only if it was found after that.
	held, err := roots.Hold(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			held.Release()
		}
	}()
	found, err = roots.Permanent(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	running, err := roots.Runtime(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	r.account.permanent, r.account.running, r.account.temp = len(found), len(running), len(held.Roots)
	for p := range running {
		found[p] = nil
	}
	for p := range held.Roots {
		found[p] = nil
		r.claims.keep(p.HashPart())
	}
	return found, held.Release, nil
}

// sweep makes the plan and carries it out.
func (r *run) sweep(ctx context.Context, found roots.Roots) error {
	r.announce()
	if err := r.adopt(ctx); err != nil {
		return err
	}
	g, err := r.loadGraph(ctx)
	if err != nil {
		return err
	}
	var left leftovers
	if r.req.WholeStore {
		if left, err = r.listStore(g); err != nil {
			return err
		}
		defer left.close()
	}
	p := makePlan(g, r.rootNodes(g, found), left.nodes, &r.req)
	r.account.dead = len(p.dead)
	for _, alive := range p.alive[:g.valid] {
		if alive {
			r.account.alive++
		}
	}
	for _, c := range p.cycles {
		// Such a thing can only come from a damaged database. The rest is collected all the same.
		r.req.Log.Message(activity.Error, fmt.Sprintf("cycle detected in the references of '%s' from '%s'",
			r.dir.Print(g.paths[c[0]]), r.dir.Print(g.paths[c[1]])))
	}
	if err := r.o.Step("planned"); err != nil {
		return err
	}
	switch r.req.Action {
	case ReturnLive:
		r.results.Paths = p.live(g, r.dir, r.req.WholeStore)
		return nil
	case ReturnDead:
		r.results.Paths = append(g.printAll(r.dir, p.dead), left.names(r.dir)...)
		return nil
	}
	r.sight.step.Store("deleting")
	r.sight.dead.Store(uint64(len(p.dead) + len(left.junk)))
	if err := r.execute(ctx, g, p, &left); err != nil {
		return err
	}
	if i := p.firstAlive(); r.req.Action == DeleteSpecific && i >= 0 {
		return &AliveError{Path: r.dir.Print(g.paths[p.asked[i]])}
	}
	return nil
}

func (r *run) announce() {
	switch {
	case r.req.Action == DeleteSpecific:
		// 2.34.8 says nothing here.
	case r.req.Action == DeleteDead && r.req.WholeStore:
		r.info("deleting garbage...")
	case r.req.Action == DeleteDead:
		r.info("deleting garbage within specified paths...")
	default:
		r.info("determining live/dead paths...")
	}
}

// adopt sees to it that the graph has what an overlay shows.
func (r *run) adopt(ctx context.Context) error {
	o, ok := r.o.Store.(Overlay)
	switch {
	case !ok:
		return nil
	case r.req.WholeStore:
		return o.AdoptAll(ctx)
	}
	settings := r.req.Action == DeleteSpecific
	return o.Adopt(ctx, r.req.specific(), settings && r.req.KeepDerivations, settings && r.req.KeepOutputs)
}

func (r *run) loadGraph(ctx context.Context) (*graph, error) {
	settings := r.req.WholeStore || r.req.Action == DeleteSpecific
	rows, err := r.o.Store.Graph(ctx, db.GraphOptions{
		Derivers: settings && r.req.KeepDerivations, Outputs: settings && r.req.KeepOutputs,
	})
	if err != nil {
		return nil, err
	}
	g := newGraph(r.dir, rows)
	for _, hash := range g.oddHashes {
		r.claims.keep(hash)
	}
	if n := len(g.odd); n > 0 {
		r.o.Log.Message(activity.Warn, fmt.Sprintf("warning: %d rows of the database name no store paths: they and what they refer to are kept", n))
	}
	for _, p := range r.req.specific() {
		g.add(p)
	}
	return g, nil
}

// rootNodes gives the nodes that are roots, and those that share the hash part of a temporary one: its lock file,
// what is left of its build, and so on.
func (r *run) rootNodes(g *graph, found roots.Roots) []int32 {
	var nodes []int32
	for p := range found {
		if n, ok := g.node(p); ok {
			nodes = append(nodes, n)
		}
	}
	return append(nodes, r.claims.kept(g)...)
}
