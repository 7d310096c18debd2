package db

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// fill registers n paths, each referring to refs of those before it, and returns their names.
func fillPaths(b testing.TB, db *DB, n, refs int) []string {
	b.Helper()
	rows := make([]PathRow, n)
	paths := make([]string, n)
	for i := range rows {
		paths[i] = storePath(i, "package")
		rows[i] = PathRow{Path: paths[i], Hash: testHash, NarSize: 1000, RegistrationTime: 1, Sigs: "cache.example.org-1:" + testHash}
		for j := max(0, i-refs); j < i; j++ {
			rows[i].References = append(rows[i].References, paths[j])
		}
	}
	register(b, db, rows...)
	return paths
}

// reportCPU reports the processor time per operation from here to the end, which a busy machine changes less than wall time.
func reportCPU(b *testing.B) {
	start := cpuTime(b)
	b.Cleanup(func() { b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N), "cpu-ns/op") })
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkQueryPath(b *testing.B) {
	for _, refs := range []int{0, 1, 10} {
		b.Run(fmt.Sprintf("refs=%d", refs), func(b *testing.B) {
			db := openTest(b, testOptions(b))
			paths := fillPaths(b, db, 20000, refs)
			b.ReportAllocs()
			reportCPU(b)
			for i := 0; b.Loop(); i++ {
				row, found, err := db.QueryPath(b.Context(), paths[(i*7919+10)%len(paths)])
				if err != nil || !found || (refs > 0 && len(row.References) == 0 && row.ID > 1) {
					b.Fatal(row, found, err)
				}
			}
		})
	}
}

func BenchmarkIsValid(b *testing.B) {
	db := openTest(b, testOptions(b))
	paths := fillPaths(b, db, 20000, 1)
	b.ReportAllocs()
	reportCPU(b)
	for i := 0; b.Loop(); i++ {
		if valid, err := db.IsValid(b.Context(), paths[(i*7919)%len(paths)]); !valid || err != nil {
			b.Fatal(valid, err)
		}
	}
}

func BenchmarkValidSubset(b *testing.B) {
	for _, total := range []int{20000, 200000} {
		b.Run(fmt.Sprintf("of=%d", total), func(b *testing.B) {
			db := openTest(b, testOptions(b))
			paths := fillPaths(b, db, total, 0)[:20000]
			reportCPU(b)
			for b.Loop() {
				if valid, err := db.ValidSubset(b.Context(), paths); len(valid) != len(paths) || err != nil {
					b.Fatal(len(valid), err)
				}
			}
		})
	}
}

func BenchmarkAllPaths(b *testing.B) {
	db := openTest(b, testOptions(b))
	fillPaths(b, db, 20000, 0)
	for b.Loop() {
		if paths, err := db.AllPaths(b.Context()); len(paths) != 20000 || err != nil {
			b.Fatal(len(paths), err)
		}
	}
}

func BenchmarkLoadGraph(b *testing.B) {
	db := openTest(b, testOptions(b))
	fillPaths(b, db, 20000, 10)
	for b.Loop() {
		if g, err := db.LoadGraph(b.Context(), GraphOptions{}); err != nil || len(g.Paths) != 20000 {
			b.Fatal(err)
		}
	}
}

func BenchmarkGeneration(b *testing.B) {
	db := openTest(b, testOptions(b))
	for b.Loop() {
		db.Generation()
	}
}

func BenchmarkStale(b *testing.B) {
	db := openTest(b, testOptions(b))
	for b.Loop() {
		if db.Stale() {
			b.Fatal("stale")
		}
	}
}

// BenchmarkRegister registers paths with one reference each, one at a time from some callers.
func BenchmarkRegister(b *testing.B) {
	for _, callers := range []int{1, 8} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			db := openTest(b, testOptions(b))
			base := storePath(0, "base")
			register(b, db, PathRow{Path: base, Hash: testHash})
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			reportCPU(b)
			for range callers {
				wg.Go(func() {
					for {
						i := next.Add(1)
						if i > int64(b.N) {
							return
						}
						register(b, db, PathRow{Path: storePath(int(i), "package"), Hash: testHash, NarSize: 1, References: []string{base}})
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "paths/s")
			if c := db.changes.counter; c != nil {
				b.ReportMetric(float64(b.N)/float64(c.load()), "paths/commit")
			}
		})
	}
}

func BenchmarkRegisterBatch(b *testing.B) {
	const n = 20000
	reportCPU(b)
	for b.Loop() {
		db := openTest(b, testOptions(b))
		fillPaths(b, db, n, 1)
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "paths/s")
}
