package gc

import (
	"fmt"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/storepath"
)

// graph is what there is in a store and what keeps what. A node is an index into paths.
type graph struct {
	paths []storepath.Path
	// The first nodes are the valid paths; after them come others that exist, or were asked about.
	valid int32
	rows  *db.Graph // references and sizes of the valid nodes
	// What a living node keeps beside its references: its deriver, where that is valid, or -1; its outputs, where
	// they are valid. Nil if such things do not count.
	deriver []int32
	outputs *edges

	index map[storepath.Path]int32
}

// edges are lists of nodes, one for each node.
type edges struct{ start, to []int32 }

func (e *edges) of(n int32) []int32 { return e.to[e.start[n]:e.start[n+1]] }

// newEdges sorts pairs by their first elements: counted first, then placed.
func newEdges(nodes int, pairs func(yield func(from, to int32))) *edges {
	e := &edges{start: make([]int32, nodes+1)}
	pairs(func(from, _ int32) { e.start[from+1]++ })
	for n := range nodes {
		e.start[n+1] += e.start[n]
	}
	e.to = make([]int32, e.start[nodes])
	next := append([]int32(nil), e.start...)
	pairs(func(from, to int32) {
		e.to[next[from]] = to
		next[from]++
	})
	return e
}

func newGraph(dir storepath.Dir, rows *db.Graph, keepOutputs, keepDerivations bool) (*graph, error) {
	n := len(rows.Paths)
	g := &graph{
		paths: make([]storepath.Path, n),
		valid: int32(n),
		rows:  rows,
		index: make(map[storepath.Path]int32, n+n/8),
	}
	for i, text := range rows.Paths {
		p, err := dir.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("read valid paths: %w", err)
		}
		g.paths[i] = p
		g.index[p] = int32(i)
	}
	if keepDerivations {
		g.loadDerivers(dir)
	}
	if keepOutputs {
		g.loadOutputs(dir)
	}
	return g, nil
}

func (g *graph) loadDerivers(dir storepath.Dir) {
	g.deriver = make([]int32, g.valid)
	for i, text := range g.rows.Derivers {
		g.deriver[i] = -1
		if text == "" {
			continue
		}
		if drv, ok := g.validNode(dir, text); ok {
			g.deriver[i] = drv
		}
	}
}

func (g *graph) loadOutputs(dir storepath.Dir) {
	var pairs [][2]int32
	for _, o := range g.rows.Outputs {
		if out, ok := g.validNode(dir, o.Path); ok {
			pairs = append(pairs, [2]int32{o.Drv, out})
		}
	}
	g.outputs = newEdges(int(g.valid), func(yield func(from, to int32)) {
		for _, p := range pairs {
			yield(p[0], p[1])
		}
	})
}

func (g *graph) validNode(dir storepath.Dir, text string) (int32, bool) {
	p, err := dir.Parse(text)
	if err != nil {
		return 0, false
	}
	n, ok := g.index[p]
	return n, ok && n < g.valid
}

func (g *graph) node(p storepath.Path) (int32, bool) {
	n, ok := g.index[p]
	return n, ok
}

// add gives the node of a path, a new one if it is not valid.
func (g *graph) add(p storepath.Path) int32 {
	if n, ok := g.index[p]; ok {
		return n
	}
	n := int32(len(g.paths))
	g.paths = append(g.paths, p)
	g.index[p] = n
	return n
}

func (g *graph) isValid(n int32) bool { return n < g.valid }

// references gives what a node refers to, possibly itself.
func (g *graph) references(n int32) []int32 {
	if !g.isValid(n) {
		return nil
	}
	return g.rows.References(n)
}

// keeps calls visit for everything that n keeps alive if it is alive itself.
func (g *graph) keeps(n int32, visit func(int32)) {
	if !g.isValid(n) {
		return
	}
	for _, ref := range g.rows.References(n) {
		visit(ref)
	}
	if g.deriver != nil && g.deriver[n] >= 0 {
		visit(g.deriver[n])
	}
	if g.outputs != nil {
		for _, out := range g.outputs.of(n) {
			visit(out)
		}
	}
}

// size is a bound of what deleting n frees; unknown for what is not valid.
func (g *graph) size(n int32) (size uint64, known bool) {
	if !g.isValid(n) || g.rows.NarSizes[n] == 0 {
		return 0, false
	}
	return g.rows.NarSizes[n], true
}

func (g *graph) pathsOf(nodes []int32) []storepath.Path {
	out := make([]storepath.Path, len(nodes))
	for i, n := range nodes {
		out[i] = g.paths[n]
	}
	return out
}
