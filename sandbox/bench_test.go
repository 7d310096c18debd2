package sandbox_test

import (
	"context"
	"io"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox"
	"nixdaemon/sandbox/sandboxtest"
)

func BenchmarkStartWait(b *testing.B) {
	l := newLauncher(b)
	spec := sandbox.Spec{Path: "/bin/true", Args: []string{"true"}, Dir: b.TempDir(), FilterSyscalls: true}
	b.Run("own user", func(b *testing.B) { benchmarkStart(b, l, spec) })
	b.Run("build user", func(b *testing.B) {
		spec.User = sandboxtest.BuildUser(b)
		spec.Dir = "/"
		benchmarkStart(b, l, spec)
	})
	b.Run("os exec", func(b *testing.B) {
		defer reportCPU(b)()
		for b.Loop() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchmarkStart(b *testing.B, l *sandbox.Launcher, spec sandbox.Spec) {
	defer reportCPU(b)()
	for b.Loop() {
		p, err := l.Start(context.Background(), spec)
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, p.Output())
		if err := p.Kill(); err != nil {
			b.Fatal(err)
		}
		if res, err := p.Wait(); err != nil || res.ExitCode != 0 {
			b.Fatal(res, err)
		}
	}
}

// reportCPU reports the processor time of this process and of its children for each operation.
func reportCPU(b *testing.B) func() {
	before := cpuTime()
	return func() {
		b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-us/op")
	}
}

func cpuTime() time.Duration {
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var ru unix.Rusage
		if err := unix.Getrusage(who, &ru); err == nil {
			sum += ru.Utime.Nano() + ru.Stime.Nano()
		}
	}
	return time.Duration(sum)
}
