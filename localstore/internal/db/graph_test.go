package db

import "testing"

// Row numbers are found whether they lie close together or far apart.
func TestNodeIDs(t *testing.T) {
	for name, ids := range map[string][]int64{
		"none":  nil,
		"one":   {7},
		"dense": {5, 6, 8, 9},
		"wide":  {5, 6, 1 << 40, 1<<40 + 3},
	} {
		n := nodeIDs{ids: ids}
		n.index()
		if (n.nodes != nil) != (name == "one" || name == "dense") {
			t.Errorf("%s: indexed: %v", name, n.nodes)
		}
		want := make(map[int64]int32)
		for node, id := range ids {
			want[id] = int32(node)
		}
		for _, base := range []int64{0, 1 << 40} {
			for id := base - 2; id < base+12; id++ {
				node, found := n.node(id)
				wanted, exists := want[id]
				if found != exists || found && node != wanted {
					t.Errorf("%s: node %d, %v of row %d", name, node, found, id)
				}
			}
		}
	}
}

// TestNodeNumbers: nodes are found by their rows' numbers, however far apart those are.
func TestNodeNumbers(t *testing.T) {
	const most = 1<<63 - 1
	for _, ids := range [][]int64{nil, {5}, {1, 2, 3}, {1, 9, 10}, {-most - 1, most}, {-most - 1, -most}, {-1, 0, 1}, {-7, most}, {most - 1, most}} {
		n := &nodeIDs{ids: ids}
		n.index()
		for node, id := range ids {
			if got, ok := n.node(id); !ok || int(got) != node {
				t.Errorf("%v: %d is node %d, %t", ids, id, got, ok)
			}
		}
		for _, id := range []int64{4, 77, -2, most - 2, -most + 1} {
			if got, ok := n.node(id); ok {
				t.Errorf("%v: %d is node %d", ids, id, got)
			}
		}
	}
}
