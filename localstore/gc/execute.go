package gc

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
)

const (
	// batchSize and minBatch bound how many paths are claimed at a time: as many as may fit into a transaction.
	batchSize = 2048
	minBatch  = 64

	// batchesAhead is how many batches may be invalid, and wait for that to be durable: the disk is waited for while the
	// next rows are deleted, and once for all that came meanwhile.
	batchesAhead = 8

	// jobsAhead is how many trees may wait for who deletes them. While they do the next batches collect, which then share
	// a sync; those who delete are not kept waiting for long.
	jobsAhead = 256

	// maxDeleters is how many trees are deleted at once, at most. File systems gain little from more.
	maxDeleters = 4

	// unlimited is from which MaxFreed on nothing needs to be counted before more is deleted.
	unlimited = math.MaxInt64
)

// executor carries out a plan. Its main goroutine claims paths and makes them invalid, batch by batch; one makes that
// durable, and others delete the files of earlier batches.
type executor struct {
	*run
	ctx  context.Context
	g    *graph
	plan *plan
	left *leftovers
	size int // of the next batch, in paths

	dropped chan []job // their rows are deleted, but could still come back
	jobs    chan job
	workers sync.WaitGroup
	open    sync.WaitGroup // jobs not yet done

	// Guards results and err.
	mu  sync.Mutex
	err error // the first
}

// job is one name of the store directory, claimed and not valid.
type job struct {
	path     string // in full
	name     string
	hashPart string // to be released; may be ""
	known    bool   // whether it is a store path
	was      bool   // whether it was valid
}

// execute deletes the leftovers that are no store paths, and then the dead.
func (r *run) execute(ctx context.Context, g *graph, p *plan, left *leftovers) error {
	r.claims.planned(garbage(g, p, left))
	r.results.Paths = make([]string, 0, len(p.dead)+len(left.junk))
	e := &executor{run: r, ctx: ctx, g: g, plan: p, left: left, size: minBatch, jobs: make(chan job, jobsAhead), dropped: make(chan []job, batchesAhead)}
	for range min(max(2, runtime.NumCPU()), maxDeleters) {
		e.workers.Go(e.work)
	}
	var syncing sync.WaitGroup
	syncing.Go(e.sync)
	err := e.deleteAll()
	close(e.dropped)
	syncing.Wait()
	close(e.jobs)
	e.workers.Wait()
	if err == nil {
		err = e.failed()
	}
	if err == nil {
		err = r.o.Step("deleted")
	}
	return err
}

// garbage tells of a hash part whether the plan deletes anything of it.
func garbage(g *graph, p *plan, left *leftovers) func(string) bool {
	others := make(map[string]struct{})
	for path, n := range g.others {
		if p.doomed[n] {
			others[path.HashPart()] = struct{}{}
		}
	}
	return func(hashPart string) bool {
		found := false
		g.rows.WithHashPart(hashPart, func(n int32) bool { found = p.doomed[n]; return !found })
		if _, other := others[hashPart]; other || found {
			return true
		}
		i, _ := slices.BinarySearch(left.junk, hashPart)
		return i < len(left.junk) && strings.HasPrefix(left.junk[i], hashPart)
	}
}

func (e *executor) deleteAll() error {
	for _, name := range e.left.junk {
		hash := hashPartOf(name)
		if hash != "" && !e.claims.begin(hash) {
			continue
		}
		e.hand(job{path: string(e.dir) + "/" + name, name: name, hashPart: hash})
		if more, err := e.proceed(); !more {
			return err
		}
	}
	for dead := e.plan.dead; len(dead) > 0; {
		n := e.batch(dead)
		if err := e.deleteBatch(dead[:n]); err != nil {
			return err
		}
		dead = dead[n:]
		if more, err := e.proceed(); !more {
			return err
		}
	}
	return nil
}

func (e *executor) limited() bool { return e.req.MaxFreed < unlimited }

// proceed tells whether to go on. Where the amount counts it waits until that is known.
func (e *executor) proceed() (bool, error) {
	if e.limited() {
		e.open.Wait()
	}
	if err := e.failed(); err != nil {
		return false, err
	}
	if e.limited() && e.results.BytesFreed > e.req.MaxFreed {
		e.account.limited = true
		e.info("deleted more than %d bytes; stopping", e.req.MaxFreed)
		return false, nil
	}
	return true, nil
}

func (e *executor) failed() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return e.err
	}
	if e.ctx.Err() != nil {
		return context.Cause(e.ctx)
	}
	return nil
}

// batch tells how many of the dead to claim at once. One that could free more than is wanted goes alone.
func (e *executor) batch(dead []int32) int {
	n := min(len(dead), e.size)
	if !e.limited() {
		return n
	}
	room := e.req.MaxFreed - e.results.BytesFreed
	for i, node := range dead[:n] {
		size, known := e.g.size(node)
		if !known || size > room {
			return max(i, 1)
		}
		room -= size
	}
	return n
}

// deleteBatch claims nodes, makes them invalid and has their files deleted.
func (e *executor) deleteBatch(nodes []int32) error {
	claimed := e.claim(nodes)
	err := e.o.Step("claimed")
	for err == nil && len(claimed) > 0 {
		var gone []int32
		before := len(claimed)
		gone, claimed, err = e.invalidate(claimed)
		e.size = min(max(minBatch, 2*(before-len(claimed))), batchSize)
		e.pass(gone)
		if err == nil {
			err = e.o.Step("invalidated")
		}
		if err == nil {
			err = e.failed()
		}
	}
	e.unclaim(claimed)
	return err
}

// pass has the files deleted of nodes that are not valid any more.
func (e *executor) pass(gone []int32) {
	batch := make([]job, 0, len(gone))
	for _, n := range gone {
		p := e.g.paths[n]
		j := job{path: e.g.print(e.dir, n), name: p.Base(), hashPart: p.HashPart(), known: true, was: e.g.isValid(n)}
		// The client hears of store paths in the order in which they become invalid, whichever worker gets there first.
		e.announce(j)
		batch = append(batch, j)
	}
	e.account.deleted += len(batch)
	e.open.Add(len(batch))
	e.dropped <- batch
}

// claim gives those of the nodes that nobody has claimed meanwhile.
func (e *executor) claim(nodes []int32) []int32 {
	var claimed []int32
	for _, n := range nodes {
		switch {
		case e.plan.alive[n]:
			e.account.needed++
		case e.claims.begin(e.g.paths[n].HashPart()):
			claimed = append(claimed, n)
		default:
			e.debug("cannot delete '%s' because it's a temporary root", e.g.print(e.dir, n))
			e.account.rooted.keep(e.g.print(e.dir, n))
			// What it needs comes later in the order.
			e.plan.markAlive(e.g, n)
		}
	}
	return claimed
}

func (e *executor) unclaim(nodes []int32) {
	for _, n := range nodes {
		e.claims.end(e.g.paths[n].HashPart())
	}
}

// invalidate gives the first of the nodes as far as they are not valid any more, and those whose turn is yet to come, for
// others may wait for the database. Those that stay valid are unclaimed.
func (e *executor) invalidate(nodes []int32) (gone, rest []int32, err error) {
	nodes = e.withoutNeeded(nodes)
	valid, _ := split(nodes, e.g.isValid)
	done, err := 0, error(nil)
	if len(valid) > 0 {
		done, err = e.o.Store.DropRows(e.ctx, e.g.pathsOf(valid), e.g.rows.Rows(valid))
	}
	switch {
	case err == nil:
		gone = valid[:done]
	case e.ctx.Err() != nil:
		return nil, nodes, err
	default:
		done = min(len(valid), minBatch)
		gone, err = e.invalidateEach(valid[:done])
	}
	now := nodes
	if done < len(valid) {
		i := slices.Index(nodes, valid[done])
		now, rest = nodes[:i], nodes[i:]
	}
	_, others := split(now, e.g.isValid)
	if err != nil {
		e.unclaim(others)
		return gone, rest, err
	}
	others, err = e.stillInvalid(others)
	return append(gone, others...), rest, err
}

// withoutNeeded drops what turned out to be needed.
func (e *executor) withoutNeeded(nodes []int32) []int32 {
	needed, others := split(nodes, func(n int32) bool { return e.plan.alive[n] })
	e.account.needed += len(needed)
	e.unclaim(needed)
	return others
}

func split(nodes []int32, in func(int32) bool) (yes, no []int32) {
	for _, n := range nodes {
		if in(n) {
			yes = append(yes, n)
		} else {
			no = append(no, n)
		}
	}
	return yes, no
}

// stillInvalid drops what became valid since the graph was loaded, as it can where root registers paths that it put
// into the store without making roots of them.
func (e *executor) stillInvalid(nodes []int32) ([]int32, error) {
	if len(nodes) == 0 {
		return nil, nil
	}
	valid, err := e.o.Store.ValidPaths(e.ctx, e.g.pathsOf(nodes))
	if err != nil {
		e.unclaim(nodes)
		return nil, err
	}
	valid = storepath.SortUnique(slices.Clone(valid))
	now, not := split(nodes, func(n int32) bool { return storepath.Contains(valid, e.g.paths[n]) })
	for _, n := range now {
		e.account.registered.keep(e.g.print(e.dir, n))
	}
	e.unclaim(now)
	return not, nil
}

// invalidateEach finds out which of the nodes hindered the transaction: those that got a referrer.
func (e *executor) invalidateEach(nodes []int32) (gone []int32, err error) {
	for i, n := range nodes {
		p := e.g.paths[n]
		if e.plan.alive[n] {
			e.account.needed++
			e.claims.end(p.HashPart())
			continue
		}
		_, err := e.o.Store.DropRows(e.ctx, []storepath.Path{p}, e.g.rows.Rows(nodes[i:i+1]))
		if err == nil {
			gone = append(gone, n)
			continue
		}
		if used, e2 := e.isUsed(p); e2 != nil || !used {
			e.unclaim(nodes[i:])
			return gone, err
		}
		e.debug("%v", err)
		e.account.used.keep(e.g.print(e.dir, n))
		e.plan.markAlive(e.g, n)
		e.claims.end(p.HashPart())
	}
	return gone, nil
}

func (e *executor) isUsed(p storepath.Path) (bool, error) {
	referrers, err := e.o.Store.Referrers(e.ctx, p)
	return slices.ContainsFunc(referrers, func(r storepath.Path) bool { return r != p }), err
}

// sync passes batches on once their rows cannot come back.
func (e *executor) sync() {
	for batch := range e.dropped {
		batches := [][]job{batch}
		for more := true; more; {
			select {
			case batch, more = <-e.dropped:
				batches = append(batches, batch)
			default:
				more = false
			}
		}
		err := e.o.Store.SyncDropped()
		e.fail(err)
		for _, j := range slices.Concat(batches...) {
			if err != nil {
				e.done(j) // garbage for the next collection
			} else {
				e.jobs <- j
			}
		}
	}
}

// hand passes on what had no row.
func (e *executor) hand(j job) {
	e.open.Add(1)
	e.jobs <- j
}

func (e *executor) done(j job) {
	if j.hashPart != "" {
		e.claims.end(j.hashPart)
	}
	e.open.Done()
}

func (e *executor) work() {
	for j := range e.jobs {
		e.do(j)
		e.done(j)
	}
}

// do deletes what a job names. After a failure it still does so with what is left: that is not valid any more.
func (e *executor) do(j job) {
	use, err := e.lockName(j)
	if use == nil || err != nil {
		e.fail(err)
		return
	}
	defer use.release()
	if !j.known {
		e.announce(j)
	}
	freed, err := e.o.Store.DeleteTree(e.ctx, e.o.Store.RealDir()+"/"+j.name)
	if err == nil {
		err = use.mark()
	}
	e.mu.Lock()
	e.results.Paths = append(e.results.Paths, j.path)
	e.results.BytesFreed += freed
	e.mu.Unlock()
	e.sight.deleted.Add(1)
	e.sight.freed.Add(freed)
	if err != nil && e.o.IgnoreDeleteFailure && e.ctx.Err() == nil {
		what := "garbage in store directory"
		if j.known {
			what = "store path"
		}
		e.req.Log.Message(activity.Warn, fmt.Sprintf("ignoring failure to remove %s \"%s/%s\": %v", what, e.o.Store.RealDir(), j.name, err))
		return
	}
	e.fail(err)
}

func (e *executor) announce(j job) { e.info("deleting '%s'", j.path) }

func (e *executor) lockName(j job) (*inUse, error) {
	if e.left.root == nil || j.was {
		return &inUse{}, nil
	}
	return e.left.claim(j.name)
}

func (e *executor) fail(err error) {
	if err == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = err
	}
}
