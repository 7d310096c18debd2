package meter

import (
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/daemon/status/metrics"
)

// registerProcess registers what Prometheus' libraries tell of every process,
// under their names, as far as the system tells it.
func registerProcess(r *metrics.Registry) {
	started := time.Now()
	r.Gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.",
		func() float64 { return float64(started.UnixMilli()) / 1e3 })
	r.Count("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", cpuTime)
	optional := func(name, help string, read func() (float64, bool)) {
		r.Func(metrics.Desc{Name: name, Help: help, Kind: metrics.KindGauge}, func(emit func(float64, ...string)) {
			if n, ok := read(); ok {
				emit(n)
			}
		})
	}
	optional("process_open_fds", "Number of open file descriptors.", openFiles)
	optional("process_max_fds", "Maximum number of open file descriptors.", maxFiles)
	optional("process_resident_memory_bytes", "Resident memory size in bytes.", residentMemory)
	r.Gauge("go_goroutines", "Number of goroutines that currently exist.", func() float64 { return float64(runtime.NumGoroutine()) })
	r.Func(metrics.Desc{Name: "go_info", Help: "Information about the Go environment.", Kind: metrics.KindGauge, Labels: []string{"version"}},
		func(emit func(float64, ...string)) { emit(1, runtime.Version()) })
	r.Gauge("go_memstats_heap_alloc_bytes", "Number of heap bytes allocated and currently in use.", runtimeNumber("/memory/classes/heap/objects:bytes"))
	r.Gauge("go_memstats_sys_bytes", "Number of bytes obtained from system.", runtimeNumber("/memory/classes/total:bytes"))
}

// runtimeNumber reads one of package runtime/metrics.
func runtimeNumber(name string) func() float64 {
	return func() float64 {
		s := []runtimemetrics.Sample{{Name: name}}
		runtimemetrics.Read(s)
		return float64(s[0].Value.Uint64())
	}
}

func cpuTime() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func maxFiles() (float64, bool) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return float64(limit.Cur), err == nil
}

// Revision is the commit that the program was built from, "" if unknown.
func Revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
