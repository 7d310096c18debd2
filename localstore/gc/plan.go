package gc

import (
	"slices"

	"nixdaemon/protocol/storepath"
)

// plan says what to do with the nodes of a graph. It is made without looking at anything else.
type plan struct {
	alive []bool
	// dead is what to delete, referrers before what they refer to; doomed has the same nodes, by number.
	dead   []int32
	doomed []bool
	// asked are the nodes that the request is about.
	asked []int32
	// cycles have two nodes of each cycle of references among the dead, of which nothing can be deleted.
	cycles [][2]int32
}

// makePlan decides. onDisk are the nodes of what exists in the store directory, used for a request about the whole store.
//
// A node is alive if a root leads to it; it is dead if it is not alive and exists, or was asked about, or keeps
// something dead. Rows whose files are missing and on which nothing depends are left to verification.
func makePlan(g *graph, roots, onDisk []int32, req *Request) *plan {
	p := &plan{alive: make([]bool, len(g.paths)), asked: onDisk}
	if !req.WholeStore {
		p.asked = nodesOf(g, req.specific())
		if !req.DeleteReferrers {
			roots = slices.Concat(roots, others(g, p.asked))
		}
	}
	for _, n := range slices.Concat(g.odd, roots) {
		p.markAlive(g, n)
	}
	starts := p.asked
	if i := p.firstAlive(); req.Action == DeleteSpecific && i >= 0 {
		starts = starts[:i] // it fails there
	}
	p.doomed = p.reach(g, starts)
	p.sort(g, p.doomed)
	return p
}

func nodesOf(g *graph, paths []storepath.Path) []int32 {
	nodes := make([]int32, len(paths))
	for i, p := range paths {
		nodes[i], _ = g.node(p)
	}
	return nodes
}

// others gives the valid nodes that were not asked about.
func others(g *graph, asked []int32) []int32 {
	in := make([]bool, len(g.paths))
	for _, n := range asked {
		in[n] = true
	}
	var out []int32
	for n := range g.valid {
		if !in[n] {
			out = append(out, n)
		}
	}
	return out
}

// markAlive marks a node and all that it keeps.
func (p *plan) markAlive(g *graph, n int32) {
	if p.alive[n] {
		return
	}
	p.alive[n] = true
	stack := []int32{n}
	visit := func(to int32) {
		if !p.alive[to] {
			p.alive[to] = true
			stack = append(stack, to)
		}
	}
	for len(stack) > 0 {
		n = stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		g.keeps(n, visit)
	}
}

// reach gives the dead nodes among starts, and all dead ones that keep them: those that must be deleted with them.
func (p *plan) reach(g *graph, starts []int32) (reached []bool) {
	reached = make([]bool, len(g.paths))
	var stack []int32
	count := 0
	for _, n := range starts {
		if !p.alive[n] && !reached[n] {
			reached[n] = true
			stack = append(stack, n)
			count++
		}
	}
	if !p.hasOthers(g, count) {
		return reached
	}
	keepers := newEdges(len(g.paths), func(yield func(from, to int32)) {
		for n := range g.valid {
			if !p.alive[n] {
				g.keeps(n, func(to int32) { yield(to, n) })
			}
		}
	})
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, k := range keepers.of(n) {
			if !reached[k] {
				reached[k] = true
				stack = append(stack, k)
			}
		}
	}
	return reached
}

// hasOthers tells whether there are more dead nodes than count.
func (p *plan) hasOthers(g *graph, count int) bool {
	for _, alive := range p.alive {
		if !alive {
			count--
		}
	}
	return count < 0
}

// sort puts the nodes into the order of deletion: a node's turn comes when none is left that refers to it. The oldest of
// those that nothing refers to come first, each followed by what only it had needed. That was mostly registered just
// before, so that what goes together lies together in the database, too.
func (p *plan) sort(g *graph, set []bool) {
	const taken = -1
	referrers, total := p.countReferrers(g, set)
	p.dead = make([]int32, 0, total)
	var free []int32
	for n, in := range set {
		if !in || referrers[n] != 0 {
			continue
		}
		for free = append(free, int32(n)); len(free) > 0; {
			n := free[len(free)-1]
			free = free[:len(free)-1]
			referrers[n] = taken
			p.dead = append(p.dead, n)
			for _, ref := range g.references(n) {
				if set[ref] && ref != n {
					if referrers[ref]--; referrers[ref] == 0 {
						free = append(free, ref)
					}
				}
			}
		}
	}
	if len(p.dead) < total {
		p.findCycles(g, set, referrers)
	}
}

// countReferrers gives, for each node of the set, how many others of the set refer to it, and how many nodes those are.
func (p *plan) countReferrers(g *graph, set []bool) (referrers []int32, total int) {
	referrers = make([]int32, len(g.paths))
	for n, in := range set {
		if !in {
			continue
		}
		total++
		for _, ref := range g.references(int32(n)) {
			if set[ref] && int(ref) != n {
				referrers[ref]++
			}
		}
	}
	return referrers, total
}

// findCycles looks among the nodes that were never free of referrers. Each has one, so going from referrer to referrer leads
// into a cycle.
func (p *plan) findCycles(g *graph, set []bool, referrers []int32) {
	stuck := newEdges(len(g.paths), func(yield func(from, to int32)) {
		for n, in := range set {
			if in && referrers[n] > 0 {
				for _, ref := range g.references(int32(n)) {
					if int(ref) != n && set[ref] {
						yield(ref, int32(n))
					}
				}
			}
		}
	})
	seen := make([]int32, len(g.paths)) // the walk in which a node was met; 0 for none
	for n, in := range set {
		if !in || referrers[n] <= 0 || seen[n] != 0 {
			continue
		}
		walk, at := int32(n+1), int32(n)
		for seen[at] == 0 {
			seen[at] = walk
			next := stuck.of(at)[0]
			if seen[next] == walk {
				p.cycles = append(p.cycles, [2]int32{at, next})
			}
			at = next
		}
	}
}

// firstAlive gives the place of the first of the asked nodes that is alive, or -1.
func (p *plan) firstAlive() int {
	return slices.IndexFunc(p.asked, func(n int32) bool { return p.alive[n] })
}

// live prints what is alive: all of it, or those of the paths that were asked about.
func (p *plan) live(g *graph, dir storepath.Dir, wholeStore bool) []string {
	var out []string
	print := func(n int32) {
		if p.alive[n] && !g.isOdd(n) {
			out = append(out, g.print(dir, n))
		}
	}
	if wholeStore {
		for n := range g.paths {
			print(int32(n))
		}
		return out
	}
	for _, n := range p.asked {
		print(n)
	}
	return out
}
