package db

import (
	"context"
	"fmt"

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
			g.Outputs = append(g.Outputs, GraphOutput{Drv: nodes[s.ColumnInt64(0)], Path: s.ColumnText(1)})
			return checkEvery(ctx, len(g.Outputs))
		})
	})
	return g, err
}

// loadNodes returns the node of each row number.
func (c *conn) loadNodes(ctx context.Context, g *Graph) (map[int64]int32, error) {
	nodes := make(map[int64]int32)
	err := c.each(stmtListNodes, nil, func(s *sqlite.Stmt) error {
		nodes[s.ColumnInt64(0)] = int32(len(g.Paths))
		g.Paths = append(g.Paths, s.ColumnText(1))
		g.Derivers = append(g.Derivers, s.ColumnText(2))
		g.NarSizes = append(g.NarSizes, uint64(s.ColumnInt64(3)))
		return checkEvery(ctx, len(g.Paths))
	})
	return nodes, err
}

// loadEdges sorts the edges by referrer: counted first, then placed.
func (c *conn) loadEdges(ctx context.Context, g *Graph, nodes map[int64]int32) error {
	var edges [][2]int32
	g.RefStart = make([]int32, len(g.Paths)+1)
	err := c.each(stmtListEdges, nil, func(s *sqlite.Stmt) error {
		from, ok1 := nodes[s.ColumnInt64(0)]
		to, ok2 := nodes[s.ColumnInt64(1)]
		if ok1 && ok2 {
			edges = append(edges, [2]int32{from, to})
			g.RefStart[from+1]++
		}
		return checkEvery(ctx, len(edges))
	})
	if err != nil {
		return err
	}
	for i := range g.Paths {
		g.RefStart[i+1] += g.RefStart[i]
	}
	g.Refs = make([]int32, len(edges))
	next := append([]int32(nil), g.RefStart...)
	for _, e := range edges {
		g.Refs[next[e[0]]] = e[1]
		next[e[0]]++
	}
	return nil
}
