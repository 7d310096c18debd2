package gc

import (
	"context"
	"math/rand/v2"
	"testing"
)

// tenReferences is the shape of the benchmarks: 20,000 paths with up to ten references each.
func tenReferences() *shape {
	r := rand.New(rand.NewPCG(1, 2))
	s := &shape{n: 20000, refs: map[int][]int{}}
	for i := 1; i < s.n; i++ {
		seen := map[int]bool{}
		for range 10 {
			if ref := r.IntN(i); !seen[ref] {
				seen[ref] = true
				s.refs[i] = append(s.refs[i], ref)
			}
		}
	}
	return s
}

// collectAll deletes everything in a store of that shape.
func collectAll(b *testing.B, s *shape) {
	for b.Loop() {
		b.StopTimer()
		f := newFixture(b, s)
		b.StartTimer()
		if res := f.collect(wholeStore(DeleteDead)); len(res.Paths) != s.n {
			b.Fatal(len(res.Paths))
		}
	}
	b.ReportMetric(float64(b.N*s.n)/b.Elapsed().Seconds(), "paths/s")
}

// BenchmarkCollect20000 deletes 20,000 dead paths with ten references each.
func BenchmarkCollect20000(b *testing.B) {
	collectAll(b, tenReferences())
}

// BenchmarkCollect20000Sparse deletes 20,000 dead paths with one reference each.
func BenchmarkCollect20000Sparse(b *testing.B) {
	collectAll(b, chain(20000))
}

// BenchmarkPrintLive20000 marks 20,000 live paths, with everything that a request costs.
func BenchmarkPrintLive20000(b *testing.B) {
	s := tenReferences()
	f := newFixture(b, s)
	for i := range 50 {
		f.root(testPath(s.n-1-i).Name(), s.n-1-i)
	}
	c := f.collector(nil)
	for b.Loop() {
		if _, err := c.Collect(context.Background(), wholeStore(ReturnLive)); err != nil {
			b.Fatal(err)
		}
	}
}
