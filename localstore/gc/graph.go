package gc

import (
	"path"
	"strings"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/storepath"
)

// graph is what there is in a store and what keeps what. A node is an index into paths.
type graph struct {
	// paths share their texts with rows.
	paths []storepath.Path
	// The first nodes are the valid paths; after them come others that exist, or were asked about.
	valid int32
	rows  *db.Graph // references and sizes of the valid nodes
	// outputs are what a living derivation keeps beside its references. Nil if that does not count.
	outputs *edges

	others map[storepath.Path]int32 // the nodes that are not valid

	// odd are rows that somebody else has written, or that were damaged, and that name nothing in the store. They have a
	// node and no path, and stay, as does what they refer to, and what has the hash parts that theirs begin with.
	odd       []int32
	oddHashes []string
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

// newGraph takes rows' derivers and outputs for what is kept with a path, where they were loaded.
func newGraph(dir storepath.Dir, rows *db.Graph) *graph {
	g := &graph{
		paths:  make([]storepath.Path, len(rows.Paths)),
		valid:  int32(len(rows.Paths)),
		rows:   rows,
		others: make(map[storepath.Path]int32),
	}
	for i, text := range rows.Paths {
		// With a slash too many it is another row than that of the path, which alone counts.
		p, err := dir.Parse(text)
		if err != nil || len(text) != len(dir)+1+len(p.Base()) {
			g.odd = append(g.odd, int32(i))
			continue
		}
		g.paths[i] = p
	}
	g.hideOdd(dir)
	if rows.Outputs != nil {
		g.outputs = newEdges(int(g.valid), func(yield func(from, to int32)) {
			for _, o := range rows.Outputs {
				yield(o.Drv, o.Out)
			}
		})
	}
	return g
}

// hideOdd keeps odd rows from being found by names, which may be those of paths: nor are derivers and outputs, which have
// been looked up already.
func (g *graph) hideOdd(dir storepath.Dir) {
	if len(g.odd) == 0 {
		return
	}
	names := make(map[int32]string)
	for _, n := range g.odd {
		text := path.Clean(g.rows.Paths[n])
		names[n] = path.Base(text)
		if rest, in := strings.CutPrefix(text, string(dir)+"/"); in && len(rest) >= storepath.HashLen {
			g.oddHashes = append(g.oddHashes, rest[:storepath.HashLen])
		}
		g.rows.Paths[n] = ""
	}
	g.rows.Index()
	replace := func(n *int32) {
		if name, odd := names[*n]; odd {
			if meant, found := g.rows.Node(name); found {
				*n = meant
			}
		}
	}
	for i := range g.rows.Derivers {
		replace(&g.rows.Derivers[i])
	}
	for i := range g.rows.Outputs {
		replace(&g.rows.Outputs[i].Out)
	}
}

func (g *graph) isOdd(n int32) bool { return g.paths[n].IsZero() }

func (g *graph) node(p storepath.Path) (int32, bool) {
	if n, ok := g.rows.Node(p.Base()); ok {
		return n, true
	}
	n, ok := g.others[p]
	return n, ok
}

// add gives the node of a path, a new one if it is not valid.
func (g *graph) add(p storepath.Path) int32 {
	if n, ok := g.node(p); ok {
		return n
	}
	n := int32(len(g.paths))
	g.paths = append(g.paths, p)
	g.others[p] = n
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
	if g.rows.Derivers != nil && g.rows.Derivers[n] >= 0 {
		visit(g.rows.Derivers[n])
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

// print gives the full path of a node.
func (g *graph) print(dir storepath.Dir, n int32) string {
	if !g.isValid(n) {
		return dir.Print(g.paths[n])
	}
	return g.rows.Paths[n]
}

func (g *graph) printAll(dir storepath.Dir, nodes []int32) []string {
	out := make([]string, len(nodes))
	for i, n := range nodes {
		out[i] = g.print(dir, n)
	}
	return out
}
