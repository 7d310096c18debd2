package build

import (
	"fmt"
	"testing"
	"time"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// BenchmarkInputs builds in a sandbox with inputs that many builders share: first a request in which everything has to be
// put together, then what each further builder costs.
func BenchmarkInputs(b *testing.B) {
	for _, inputs := range []int{8, 800} {
		b.Run(fmt.Sprint(inputs), func(b *testing.B) {
			w := benchWorld(b, 2)
			w.alone()
			request := func(name string, n int, sources []storepath.Path) time.Duration {
				paths := make([]derivation.DerivedPath, n)
				for i := range paths {
					paths[i] = built(w.drv(fmt.Sprintf("%s-%d", name, i), "echo > $out", needs(sources...)))
				}
				before := cpuTime()
				w.buildAll(paths)
				return cpuTime() - before
			}
			var first, further time.Duration
			const few, many = 20, 100
			for i := range b.N {
				sources := make([]storepath.Path, inputs)
				for j := range sources {
					sources[j] = w.source(fmt.Sprintf("input-%d-%d", i, j), "text")
				}
				first += request(fmt.Sprintf("first-%d", i), few, sources)
				further += request(fmt.Sprintf("further-%d", i), many, sources)
			}
			b.ReportMetric(first.Seconds()*1000/few/float64(b.N), "cpu-ms/first")
			b.ReportMetric(further.Seconds()*1000/many/float64(b.N), "cpu-ms/further")
		})
	}
}
