package gc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/storepath"
)

const testDir = storepath.Dir("/nix/store")

// testPath gives the path of a small number; every third one is a derivation.
func testPath(n int) storepath.Path {
	ext := ""
	if n%3 == 0 {
		ext = ".drv"
	}
	p, err := storepath.ParseBase(fmt.Sprintf("%032d-p%d%s", n, n, ext))
	if err != nil {
		panic(err)
	}
	return p
}

// shape is a graph in a form that is easy to write down and to reason about.
type shape struct {
	refs    map[int][]int
	deriver map[int]int
	outputs map[int][]int
	n       int
}

func (s *shape) rows() *db.Graph {
	g := &db.Graph{RefStart: []int32{0}}
	for i := range s.n {
		g.Paths = append(g.Paths, testDir.Print(testPath(i)))
		g.NarSizes = append(g.NarSizes, 100)
		deriver := int32(-1)
		if d, ok := s.deriver[i]; ok {
			deriver = int32(d)
		}
		g.Derivers = append(g.Derivers, deriver)
		for _, ref := range s.refs[i] {
			g.Refs = append(g.Refs, int32(ref))
		}
		g.RefStart = append(g.RefStart, int32(len(g.Refs)))
		for _, out := range s.outputs[i] {
			g.Outputs = append(g.Outputs, db.GraphOutput{Drv: int32(i), Out: int32(out)})
		}
	}
	g.Index()
	return g
}

// randomShape has references to smaller numbers and now and then to itself, and derivations with outputs.
func randomShape(r *rand.Rand, n int) *shape {
	s := &shape{n: n, refs: map[int][]int{}, deriver: map[int]int{}, outputs: map[int][]int{}}
	for i := range n {
		for range r.IntN(4) {
			if i > 0 {
				s.refs[i] = append(s.refs[i], r.IntN(i))
			}
		}
		if r.IntN(8) == 0 {
			s.refs[i] = append(s.refs[i], i)
		}
		slices.Sort(s.refs[i])
		s.refs[i] = slices.Compact(s.refs[i])
	}
	for drv := 0; drv < n; drv += 3 {
		for range r.IntN(3) {
			out := r.IntN(n)
			if out%3 == 0 || slices.Contains(s.outputs[drv], out) {
				continue
			}
			s.outputs[drv] = append(s.outputs[drv], out)
			if _, known := s.deriver[out]; !known && r.IntN(4) > 0 {
				s.deriver[out] = drv
			}
		}
	}
	return s
}

// deadByBlame is the rule as the manual has it: a path goes if nothing that needs it, directly or not, is a root.
func (s *shape) deadByBlame(roots []int, keepOutputs, keepDerivations bool, within func(int) bool) []int {
	keepers := make(map[int][]int)
	for i := range s.n {
		for _, ref := range s.refs[i] {
			keepers[ref] = append(keepers[ref], i)
		}
		if drv, ok := s.deriver[i]; ok && keepDerivations {
			keepers[drv] = append(keepers[drv], i)
		}
		if keepOutputs {
			for _, out := range s.outputs[i] {
				keepers[out] = append(keepers[out], i)
			}
		}
	}
	var dead []int
	for i := range s.n {
		todo, seen, needed := []int{i}, map[int]bool{i: true}, false
		for len(todo) > 0 && !needed {
			at := todo[0]
			todo = todo[1:]
			needed = slices.Contains(roots, at) || !within(at)
			for _, k := range keepers[at] {
				if !seen[k] {
					seen[k] = true
					todo = append(todo, k)
				}
			}
		}
		if !needed {
			dead = append(dead, i)
		}
	}
	return dead
}

func all(int) bool { return true }

func mustGraph(t testing.TB, rows *db.Graph, keepOutputs, keepDerivations bool) *graph {
	t.Helper()
	some := *rows
	if !keepOutputs {
		some.Outputs = nil
	}
	if !keepDerivations {
		some.Derivers = nil
	}
	return newGraph(testDir, &some)
}

func everything(g *graph) []int32 {
	nodes := make([]int32, len(g.paths))
	for i := range nodes {
		nodes[i] = int32(i)
	}
	return nodes
}

func sortedInts(nodes []int32) []int {
	var out []int
	for _, n := range nodes {
		out = append(out, int(n))
	}
	slices.Sort(out)
	return out
}

func checkOrder(t *testing.T, s *shape, dead []int32) {
	t.Helper()
	place := make(map[int]int)
	for i, n := range dead {
		place[int(n)] = i
	}
	for n, refs := range s.refs {
		for _, ref := range refs {
			a, ok1 := place[n]
			b, ok2 := place[ref]
			if ok1 && ok2 && n != ref && a > b {
				t.Fatalf("%d is deleted before its referrer %d", ref, n)
			}
		}
	}
}

// What only one path had needed goes with it, and the oldest such path goes first.
func TestPlanKeepsClosuresTogether(t *testing.T) {
	s := &shape{n: 9, refs: map[int][]int{2: {0, 1}, 5: {0, 3, 4}, 4: {3}, 8: {5, 6, 7}, 7: {6, 7}}}
	p := makePlan(mustGraph(t, s.rows(), false, false), nil, []int32{0, 1, 2, 3, 4, 5, 6, 7, 8}, &Request{Action: DeleteDead, WholeStore: true})
	if diff := cmp.Diff([]int32{2, 1, 8, 7, 6, 5, 4, 3, 0}, p.dead); diff != "" {
		t.Errorf("order of deletion (-want +got):\n%s", diff)
	}
	checkOrder(t, s, p.dead)
}

func TestPlanWholeStoreAgainstDefinition(t *testing.T) {
	for seed := range uint64(600) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := randomShape(r, 5+r.IntN(40))
		keepOutputs, keepDerivations := r.IntN(2) == 0, r.IntN(2) == 0
		g := mustGraph(t, s.rows(), keepOutputs, keepDerivations)
		var roots []int32
		for range r.IntN(4) {
			roots = append(roots, int32(r.IntN(s.n)))
		}
		p := makePlan(g, roots, everything(g), &Request{Action: DeleteDead, WholeStore: true})
		want := s.deadByBlame(sortedInts(roots), keepOutputs, keepDerivations, all)
		if diff := cmp.Diff(want, sortedInts(p.dead)); diff != "" {
			t.Fatalf("seed %d: dead (-want +got):\n%s", seed, diff)
		}
		checkOrder(t, s, p.dead)
		if live := p.live(g, testDir, true); len(live)+len(p.dead) != s.n {
			t.Fatalf("seed %d: %d live and %d dead of %d", seed, len(live), len(p.dead), s.n)
		}
	}
}

func TestPlanSpecificAgainstDefinition(t *testing.T) {
	for seed := range uint64(600) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := randomShape(r, 5+r.IntN(30))
		g := mustGraph(t, s.rows(), false, false)
		var asked []int
		req := Request{Action: DeleteDead, DeleteReferrers: r.IntN(2) == 0}
		for i := range s.n {
			if r.IntN(3) == 0 {
				asked = append(asked, i)
				req.Paths = append(req.Paths, testPath(i))
			}
		}
		roots := []int32{int32(r.IntN(s.n))}
		p := makePlan(g, roots, nil, &req)

		within := func(n int) bool { return req.DeleteReferrers || slices.Contains(asked, n) }
		dead := s.deadByBlame(sortedInts(roots), false, false, within)
		var want []int
		for _, n := range dead {
			// Of the dead, those that were asked about and those that refer to them.
			if slices.ContainsFunc(asked, func(a int) bool { return slices.Contains(dead, a) && s.refersTo(n, a) }) {
				want = append(want, n)
			}
		}
		if diff := cmp.Diff(want, sortedInts(p.dead)); diff != "" {
			t.Fatalf("seed %d: dead (-want +got):\n%s", seed, diff)
		}
		checkOrder(t, s, p.dead)
	}
}

// refersTo tells whether n is m or refers to it through others.
func (s *shape) refersTo(n, m int) bool {
	if n == m {
		return true
	}
	return slices.ContainsFunc(s.refs[n], func(ref int) bool { return ref != n && s.refersTo(ref, m) })
}

func TestPlanTable(t *testing.T) {
	// 3.drv makes 4 and 5; 4 refers to 1; 7 refers to 4.
	chain := &shape{
		n:       8,
		refs:    map[int][]int{4: {1, 4}, 7: {4}, 3: {2}},
		deriver: map[int]int{4: 3, 5: 3},
		outputs: map[int][]int{3: {4, 5}},
	}
	tests := []struct {
		name                         string
		roots                        []int32
		keepOutputs, keepDerivations bool
		req                          Request
		dead                         []int
		failsAt                      int
	}{
		{"nothing is needed", nil, false, false, Request{Action: DeleteDead, WholeStore: true}, []int{0, 1, 2, 3, 4, 5, 6, 7}, -1},
		{"references", []int32{7}, false, false, Request{Action: DeleteDead, WholeStore: true}, []int{0, 2, 3, 5, 6}, -1},
		{"keep-derivations", []int32{4}, false, true, Request{Action: DeleteDead, WholeStore: true}, []int{0, 5, 6, 7}, -1},
		{"keep-outputs", []int32{3}, true, false, Request{Action: DeleteDead, WholeStore: true}, []int{0, 6, 7}, -1},
		{"both", []int32{5}, true, true, Request{Action: DeleteDead, WholeStore: true}, []int{0, 6, 7}, -1},
		{"one that is used", nil, false, false, Request{Action: DeleteSpecific, Paths: paths(4)}, nil, 4},
		{"one with its user", nil, false, false, Request{Action: DeleteSpecific, Paths: paths(4, 7)}, []int{4, 7}, -1},
		{"a root", []int32{7}, false, false, Request{Action: DeleteSpecific, Paths: paths(7)}, nil, 7},
		{"stops at the first that is alive", nil, false, false, Request{Action: DeleteSpecific, Paths: paths(0, 4, 6)}, []int{0}, 4},
		{"a derivation with kept outputs", nil, false, true, Request{Action: DeleteSpecific, Paths: paths(3)}, nil, 3},
		{"with referrers", nil, false, false, Request{Action: DeleteSpecific, Paths: paths(1), DeleteReferrers: true}, []int{1, 4, 7}, -1},
		{"with referrers, one a root", []int32{7}, false, false, Request{Action: DeleteDead, Paths: paths(1, 0), DeleteReferrers: true}, []int{0}, 1},
		{"dead ones of some", []int32{7}, false, false, Request{Action: DeleteDead, Paths: paths(0, 1, 2, 3)}, []int{0, 2, 3}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := mustGraph(t, chain.rows(), tt.keepOutputs, tt.keepDerivations)
			p := makePlan(g, tt.roots, everything(g), &tt.req)
			if diff := cmp.Diff(tt.dead, sortedInts(p.dead)); diff != "" {
				t.Errorf("dead (-want +got):\n%s", diff)
			}
			if tt.req.WholeStore {
				return
			}
			got := p.firstAlive()
			if got >= 0 {
				got = int(p.asked[got])
			}
			if got != tt.failsAt {
				t.Errorf("fails at %d, want %d", got, tt.failsAt)
			}
		})
	}
}

func paths(ns ...int) []storepath.Path {
	var out []storepath.Path
	for _, n := range ns {
		out = append(out, testPath(n))
	}
	return out
}

func TestPlanLeavesRowsWithoutFiles(t *testing.T) {
	s := &shape{n: 5, refs: map[int][]int{1: {2}}}
	g := mustGraph(t, s.rows(), false, false)
	// On disk are 2 and 4; 1 refers to what is deleted, so that it must go, too.
	p := makePlan(g, []int32{4}, []int32{2, 4}, &Request{Action: DeleteDead, WholeStore: true})
	if diff := cmp.Diff([]int{1, 2}, sortedInts(p.dead)); diff != "" {
		t.Errorf("dead (-want +got):\n%s", diff)
	}
}

func TestPlanReportsCycles(t *testing.T) {
	s := &shape{n: 6, refs: map[int][]int{1: {2}, 2: {3}, 3: {1, 4}, 5: {1}}}
	g := mustGraph(t, s.rows(), false, false)
	p := makePlan(g, nil, everything(g), &Request{Action: DeleteDead, WholeStore: true})
	if diff := cmp.Diff([]int{0, 5}, sortedInts(p.dead)); diff != "" {
		t.Errorf("dead (-want +got):\n%s", diff)
	}
	if len(p.cycles) != 1 {
		t.Errorf("cycles: %v", p.cycles)
	}
}

func TestGraphAddsWhatIsNotValid(t *testing.T) {
	g := mustGraph(t, (&shape{n: 2}).rows(), true, true)
	n := g.add(testPath(9))
	if again := g.add(testPath(9)); again != n || g.isValid(n) {
		t.Errorf("got %d and %d, valid %t", n, again, g.isValid(n))
	}
	if old := g.add(testPath(1)); old != 1 {
		t.Errorf("got %d for a valid path", old)
	}
	if len(g.references(n)) != 0 {
		t.Error("an invalid path has references")
	}
	g.keeps(n, func(int32) { t.Error("an invalid path keeps something") })
}

// TestOddRows: rows that name no store paths stay, with all that they refer to, and are not taken for paths of their names.
func TestOddRows(t *testing.T) {
	s := &shape{n: 6, refs: map[int][]int{4: {1}}, deriver: map[int]int{2: 5}, outputs: map[int][]int{0: {5}}}
	for _, odd := range []string{"/elsewhere/x", "", "no path", "/nix/store", "/nix/store/x", "/nix/store/" + testPath(1).Base() + "/sub"} {
		rows := s.rows()
		rows.Paths[4] = odd
		rows.Paths[5] = "/nix/store//" + testPath(3).Base() // another row with the name of a path that has one
		rows.Index()
		rows.Derivers[2], rows.Outputs[0].Out = 5, 5 // as they are found by name
		g := newGraph(testDir, rows)
		wantHashes := []string{testPath(3).HashPart()}
		if strings.HasSuffix(odd, "/sub") {
			wantHashes = []string{testPath(1).HashPart(), testPath(3).HashPart()}
		}
		if diff := cmp.Diff(wantHashes, g.oddHashes); diff != "" {
			t.Errorf("%q: hash parts (-want +got):\n%s", odd, diff)
		}
		for _, n := range []int{0, 1, 2, 3} {
			if got, ok := g.node(testPath(n)); !ok || got != int32(n) {
				t.Errorf("%q: path %d has node %d, %t", odd, n, got, ok)
			}
		}
		for _, root := range []int32{0, 2, 3} {
			req := wholeStore(ReturnLive)
			p := makePlan(g, []int32{root}, []int32{0, 1, 2, 3}, &req)
			want := map[int32][]int{0: {0, 1, 3}, 2: {1, 2, 3}, 3: {1, 3}}[root]
			var all []string
			for _, n := range want {
				all = append(all, testDir.Print(testPath(n)))
			}
			if diff := cmp.Diff(all, p.live(g, testDir, true)); diff != "" {
				t.Errorf("%q, root %d (-want +got):\n%s", odd, root, diff)
			}
			if len(p.dead) != 4-len(want) {
				t.Errorf("%q, root %d: dead are %v", odd, root, p.dead)
			}
		}
	}
}

// denseRows has n paths with refs references each.
func denseRows(n, refs int) *db.Graph {
	r := rand.New(rand.NewPCG(1, 2))
	s := &shape{n: n, refs: map[int][]int{}}
	for i := 1; i < n; i++ {
		for range refs {
			s.refs[i] = append(s.refs[i], r.IntN(i))
		}
	}
	return s.rows()
}

func BenchmarkMark20000Dense(b *testing.B) {
	rows := denseRows(20000, 100)
	for b.Loop() {
		g := mustGraph(b, rows, true, true)
		p := makePlan(g, []int32{19999}, everything(g), &Request{Action: ReturnDead, WholeStore: true})
		if len(p.alive) != 20000 {
			b.Fatal("lost nodes")
		}
	}
}

func BenchmarkPlan20000Dead(b *testing.B) {
	rows := denseRows(20000, 10)
	for b.Loop() {
		g := mustGraph(b, rows, true, true)
		if p := makePlan(g, nil, everything(g), &Request{Action: DeleteDead, WholeStore: true}); len(p.dead) != 20000 {
			b.Fatal(len(p.dead))
		}
	}
}
