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
	// Paths are the nodes' store paths.
	Paths []string
	// Derivers are the nodes' derivers, empty where unknown.
	Derivers []string
	// NarSizes are the nodes' NAR sizes in bytes, 0 where unknown.
	NarSizes []uint64
	// Refs holds the references of all nodes, those of node i at RefStart[i] up to RefStart[i+1].
	Refs []int32
	// RefStart has one element more than Paths.
	RefStart []int32
	// Outputs are the known outputs of derivations, valid or not.
	Outputs []GraphOutput
}

// GraphOutput says that the derivation at node Drv has an output at Path.
type GraphOutput struct {
	Drv  int32
	Path string
}

// References returns the nodes that node refers to, possibly itself. The slice belongs to the graph.
func (g *Graph) References(node int32) []int32 {
	return g.Refs[g.RefStart[node]:g.RefStart[node+1]]
}

// LoadGraph reads the whole graph. It can be interrupted through ctx.
func (db *DB) LoadGraph(ctx context.Context) (*Graph, error) {
	var g *Graph
	err := db.read(ctx, func(c *conn) (err error) { g, err = c.loadGraph(ctx); return err })
	if err != nil {
		return nil, fmt.Errorf("load reference graph: %w", err)
	}
	return g, nil
}

func (c *conn) loadGraph(ctx context.Context) (*Graph, error) {
	g := &Graph{}
	err := c.snapshot(func() error {
		nodes, err := c.loadNodes(ctx, g)
		if err != nil {
			return err
		}
		if err := c.loadEdges(ctx, g, nodes); err != nil {
			return err
		}
		return c.each(stmtListOutputs, nil, func(s *sqlite.Stmt) error {
			if drv, ok := nodes.node(s.ColumnInt64(0)); ok {
				g.Outputs = append(g.Outputs, GraphOutput{Drv: drv, Path: s.ColumnText(1)})
			}
			return checkEvery(ctx, len(g.Outputs))
		})
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
	span := n.ids[len(n.ids)-1] - n.ids[0] + 1
	if span > 4*int64(len(n.ids))+1024 {
		return
	}
	n.nodes = make([]int32, span)
	for node, id := range n.ids {
		n.nodes[id-n.ids[0]] = int32(node) + 1
	}
}

func (n *nodeIDs) node(id int64) (int32, bool) {
	if n.nodes == nil {
		node, found := slices.BinarySearch(n.ids, id)
		return int32(node), found
	}
	at := id - n.ids[0]
	if at < 0 || at >= int64(len(n.nodes)) {
		return 0, false
	}
	return n.nodes[at] - 1, n.nodes[at] > 0
}

func (c *conn) loadNodes(ctx context.Context, g *Graph) (*nodeIDs, error) {
	n := &nodeIDs{}
	err := c.each(stmtListNodes, nil, func(s *sqlite.Stmt) error {
		n.ids = append(n.ids, s.ColumnInt64(0))
		g.Paths = append(g.Paths, s.ColumnText(1))
		g.Derivers = append(g.Derivers, s.ColumnText(2))
		g.NarSizes = append(g.NarSizes, uint64(s.ColumnInt64(3)))
		return checkEvery(ctx, len(g.Paths))
	})
	n.index()
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
