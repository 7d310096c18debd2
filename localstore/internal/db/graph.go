package db

import (
	"context"
	"fmt"
	"slices"

	"zombiezen.com/go/sqlite"
)

// Graph is every valid path and what it refers to, as arrays: a node is an index into Paths.
// It is one snapshot of the database.
type Graph struct {
	// Paths are the nodes' store paths. They share few large allocations.
	Paths []string
	// NarSizes are the nodes' NAR sizes in bytes, 0 where unknown.
	NarSizes []uint64
	// Refs holds the references of all nodes, those of node i at RefStart[i] up to RefStart[i+1].
	Refs []int32
	// RefStart has one element more than Paths.
	RefStart []int32
	// Derivers are the nodes of the nodes' derivers, -1 where that is unknown or not valid; nil if not asked for.
	Derivers []int32
	// Outputs are those known outputs of derivations that are valid; nil if not asked for.
	Outputs []GraphOutput

	names nameTable

	db  *DB     // where it comes from
	ids []int64 // of the nodes' rows, numbers that no other row of that database ever gets
}

// Rows are numbers of rows in one database.
type Rows struct {
	db  *DB
	ids []int64
}

// Rows gives the rows of nodes.
func (g *Graph) Rows(nodes []int32) Rows {
	ids := make([]int64, len(nodes))
	for i, n := range nodes {
		ids[i] = g.ids[n]
	}
	return Rows{g.db, ids}
}

// GraphOutput says that the derivation at node Drv has the output at node Out.
type GraphOutput struct{ Drv, Out int32 }

// GraphOptions say what to load beside references: most of a database's size.
type GraphOptions struct{ Derivers, Outputs bool }

// References returns the nodes that node refers to, possibly itself. The slice belongs to the graph.
func (g *Graph) References(node int32) []int32 {
	return g.Refs[g.RefStart[node]:g.RefStart[node+1]]
}

// Index prepares for [Graph.Node] and [Graph.WithHashPart]. LoadGraph calls it.
func (g *Graph) Index() {
	g.names.reset(len(g.Paths))
	for i, path := range g.Paths {
		g.names.add(hashPart(baseName(path)), int32(i))
	}
}

// Node returns the node of the path whose last component is base.
func (g *Graph) Node(base string) (node int32, found bool) {
	g.names.each(hashPart(base), func(n int32) bool {
		if baseName(g.Paths[n]) == base {
			node, found = n, true
		}
		return !found
	})
	return node, found
}

// WithHashPart calls visit for each node of that hash part until it returns false.
func (g *Graph) WithHashPart(hash string, visit func(node int32) bool) {
	g.names.each(hash, func(n int32) bool {
		return hashPart(baseName(g.Paths[n])) != hash || visit(n)
	})
}

// LoadGraph reads the whole graph. It can be interrupted through ctx.
func (db *DB) LoadGraph(ctx context.Context, o GraphOptions) (*Graph, error) {
	var g *Graph
	err := db.read(ctx, func(c *conn) (err error) { g, err = c.loadGraph(ctx, o); return err })
	if err != nil {
		return nil, fmt.Errorf("load reference graph: %w", err)
	}
	g.db = db
	return g, nil
}

func (c *conn) loadGraph(ctx context.Context, o GraphOptions) (*Graph, error) {
	g := &Graph{}
	err := c.snapshot(func() error {
		nodes, err := c.loadNodes(ctx, g)
		if err != nil {
			return err
		}
		if err := c.loadEdges(ctx, g, nodes); err != nil {
			return err
		}
		g.Index()
		if o.Derivers {
			if err := c.loadDerivers(ctx, g, nodes); err != nil {
				return err
			}
		}
		if o.Outputs {
			return c.loadOutputs(ctx, g, nodes)
		}
		return nil
	})
	return g, err
}

// nodeIDs are the nodes' row numbers, which grow.
type nodeIDs struct {
	ids []int64
	// nodes are those of the row numbers from the first on, plus one; 0 where there is no row. Nil if there are few rows
	// in a wide range.
	nodes []int32
}

// index prepares for looking numbers up.
func (n *nodeIDs) index() {
	if len(n.ids) == 0 {
		return
	}
	span := uint64(n.ids[len(n.ids)-1]) - uint64(n.ids[0])
	if span >= 4*uint64(len(n.ids))+1024 {
		return
	}
	n.nodes = make([]int32, span+1)
	for node, id := range n.ids {
		n.nodes[id-n.ids[0]] = int32(node) + 1
	}
}

func (n *nodeIDs) node(id int64) (int32, bool) {
	if n.nodes == nil {
		node, found := slices.BinarySearch(n.ids, id)
		return int32(node), found
	}
	at := uint64(id) - uint64(n.ids[0])
	if at >= uint64(len(n.nodes)) {
		return 0, false
	}
	return n.nodes[at] - 1, n.nodes[at] > 0
}

func (c *conn) loadNodes(ctx context.Context, g *Graph) (*nodeIDs, error) {
	n := &nodeIDs{}
	var texts textArena
	err := c.each(stmtListNodes, nil, func(s *sqlite.Stmt) error {
		n.ids = append(n.ids, s.ColumnInt64(0))
		g.Paths = append(g.Paths, texts.column(s, 1))
		g.NarSizes = append(g.NarSizes, uint64(s.ColumnInt64(2)))
		return checkEvery(ctx, len(g.Paths))
	})
	n.index()
	g.ids = n.ids
	return n, err
}

// loadEdges reads the edges in the order of their referrers, which is that of the nodes.
func (c *conn) loadEdges(ctx context.Context, g *Graph, nodes *nodeIDs) error {
	g.RefStart = make([]int32, 1, len(g.Paths)+1)
	endBefore := func(node int32) {
		for len(g.RefStart) <= int(node) {
			g.RefStart = append(g.RefStart, int32(len(g.Refs)))
		}
	}
	err := c.each(stmtListEdges, nil, func(s *sqlite.Stmt) error {
		from, ok1 := nodes.node(s.ColumnInt64(0))
		to, ok2 := nodes.node(s.ColumnInt64(1))
		if ok1 && ok2 {
			endBefore(from)
			g.Refs = append(g.Refs, to)
		}
		return checkEvery(ctx, len(g.Refs))
	})
	endBefore(int32(len(g.Paths)))
	return err
}

// loadDerivers looks the derivers up by name: that of a row may stand in a later one.
func (c *conn) loadDerivers(ctx context.Context, g *Graph, nodes *nodeIDs) error {
	g.Derivers = make([]int32, len(g.Paths))
	for i := range g.Derivers {
		g.Derivers[i] = -1
	}
	var last lastPath
	seen := 0
	return c.each(stmtListDerivers, nil, func(s *sqlite.Stmt) error {
		if n, ok := nodes.node(s.ColumnInt64(0)); ok {
			g.Derivers[n] = last.node(g, s, 1)
		}
		seen++
		return checkEvery(ctx, seen)
	})
}

func (c *conn) loadOutputs(ctx context.Context, g *Graph, nodes *nodeIDs) error {
	g.Outputs = []GraphOutput{}
	var path lastPath
	seen := 0
	return c.each(stmtListOutputs, nil, func(s *sqlite.Stmt) error {
		if drv, ok := nodes.node(s.ColumnInt64(0)); ok {
			if out := path.node(g, s, 1); out >= 0 {
				g.Outputs = append(g.Outputs, GraphOutput{Drv: drv, Out: out})
			}
		}
		seen++
		return checkEvery(ctx, seen)
	})
}

// lastPath remembers the last path that was looked up: the outputs of a derivation follow one another.
type lastPath struct {
	text  string
	found int32
	buf   []byte
}

// node returns the node of the path in a column, -1 if there is none.
func (l *lastPath) node(g *Graph, s *sqlite.Stmt, column int) int32 {
	l.buf = readColumn(s, column, l.buf)
	if l.text != "" && l.text == string(l.buf) {
		return l.found
	}
	l.text, l.found = string(l.buf), -1
	if n, ok := g.Node(baseName(l.text)); ok && g.Paths[n] == l.text {
		l.found = n
	}
	return l.found
}
