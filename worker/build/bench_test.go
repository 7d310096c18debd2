package build

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// benchWorld is quiet and has as many slots as asked for.
func benchWorld(b *testing.B, jobs int, change ...func(*Options)) *world {
	w := newWorld(b, append(change, func(o *Options) { o.MaxTotalJobs = jobs })...)
	w.change(func(s *session.Session) { s.Log = activity.Discard{} })
	w.set(func(s *settings.Settings) { s.MaxJobs = uint(jobs) })
	return w
}

func (w *world) trivial(prefix string, n int) []derivation.DerivedPath {
	paths := make([]derivation.DerivedPath, n)
	for i := range paths {
		paths[i] = built(w.drv(fmt.Sprintf("%s-%d", prefix, i), "echo > $out"))
	}
	return paths
}

func (w *world) buildAll(paths []derivation.DerivedPath) {
	w.Helper()
	if err := w.sched.BuildPaths(w.ctx, w.sess, paths, derivation.BuildNormal); err != nil {
		w.Fatal(err)
	}
}

// measureTrivial builds so many independent derivations in one request, again and again.
func (w *world) measureTrivial(b *testing.B, n int) {
	var used time.Duration
	for i := range b.N {
		b.StopTimer()
		paths := w.trivial(fmt.Sprintf("t%d", i), n)
		before := cpuTime()
		b.StartTimer()
		w.buildAll(paths)
		used += cpuTime() - before
	}
	b.ReportMetric(used.Seconds()*1000/float64(n)/float64(b.N), "cpu-ms/build")
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "builds/s")
}

// BenchmarkTrivial builds independent derivations in one request.
func BenchmarkTrivial(b *testing.B) {
	for _, n := range []int{75, 300, 1200, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			benchWorld(b, 2).measureTrivial(b, n)
		})
	}
}

// BenchmarkChain builds derivations that each need the one before.
func BenchmarkChain(b *testing.B) {
	const n = 60
	w := benchWorld(b, 2)
	used := cpuTime()
	for i := range b.N {
		b.StopTimer()
		var last storepath.Path
		for j := range n {
			last = w.drv(fmt.Sprintf("c%d-%d", i, j), "echo $in > $out", dependsOn(last))
		}
		b.StartTimer()
		w.buildAll([]derivation.DerivedPath{built(last)})
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "builds/s")
	b.ReportMetric((cpuTime()-used).Seconds()*1000/float64(n)/float64(b.N), "cpu-ms/build")
}

// cpuTime is what this process and its children have used.
func cpuTime() time.Duration {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}

// BenchmarkAlreadyValid asks for outputs that are there.
func BenchmarkAlreadyValid(b *testing.B) {
	const n = 300
	w := benchWorld(b, 2)
	paths := w.trivial("v", n)
	w.buildAll(paths)
	for b.Loop() {
		w.buildAll(paths)
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "outputs/s")
}

// BenchmarkQueryMissing asks what 5,000 unbuilt derivations, in layers, need.
func BenchmarkQueryMissing(b *testing.B) {
	w := benchWorld(b, 2)
	var layer []storepath.Path
	for i := range 50 {
		var next []storepath.Path
		for j := range 100 {
			inputs := layer
			if len(inputs) > 3 {
				inputs = inputs[j%97 : j%97+3]
			}
			next = append(next, w.drv(fmt.Sprintf("q%d-%d", i, j), "echo > $out", dependsOn(inputs...)))
		}
		layer = next
	}
	var top []derivation.DerivedPath
	for _, p := range layer {
		top = append(top, built(p))
	}
	for b.Loop() {
		missing, err := w.sched.QueryMissing(w.ctx, w.sess, top)
		if err != nil || len(missing.WillBuild) < 4000 {
			b.Fatal(len(missing.WillBuild), err)
		}
	}
}

// dependsOn makes the outputs of other derivations inputs and names them in the variable "in".
func dependsOn(inputs ...storepath.Path) func(*derivation.Derivation) {
	return func(d *derivation.Derivation) {
		for _, input := range inputs {
			if !input.IsZero() {
				d.InputDrvs[input] = &derivation.InputOutputs{Outputs: []string{"out"}}
			}
		}
	}
}

// BenchmarkScan looks for references in text without any.
func BenchmarkScan(b *testing.B) {
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = "the quick brown fox jumps over 0123456789 lazy dogs\n"[i%52]
	}
	var candidates []storepath.Path
	for i := range 1000 {
		p, err := storepath.New([20]byte{byte(i), byte(i >> 8)}, "x")
		if err != nil {
			b.Fatal(err)
		}
		candidates = append(candidates, p)
	}
	s := newRefScanner(candidates)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		s.Write(data)
	}
}
