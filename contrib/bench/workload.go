package main

import (
	"context"
	"syscall"
	"time"
)

// workload is one row of the table.
type workload struct {
	name, unit   string
	lessIsBetter bool
	// needsClient: there must be programs of an upstream client.
	needsClient bool
	// configure changes how the daemon is set up: builds are neither isolated nor run as others if it is nil.
	configure func(*config)
	// prepare fills the store; it is not timed. Nil: nothing to do.
	prepare func(*bench) error
	// run does the work. Its result is how many operations it was.
	run func(*bench) (float64, error)
	// read, if not nil, gives the figure instead of operations per second.
	read func(b *bench, operations float64, took time.Duration) float64
	// also are the names of further rows in the same unit, and further the figures of those.
	also    []string
	further func(b *bench) []float64
}

// bench is one run of a workload on one daemon.
type bench struct {
	*daemon
	scratch *scratch
	ctx     context.Context
	scale   int
	state   any
	block   []byte // of noise
}

// n scales a count down for quick runs.
func (b *bench) n(count int) int { return max(1, count/b.scale) }

// once starts a daemon, prepares its store, and times the work.
func once(ctx context.Context, w workload, scratch *scratch, binary string, o options) (result, error) {
	var c config
	if w.configure != nil {
		w.configure(&c)
	}
	d, err := start(ctx, scratch, binary, &c)
	if err != nil {
		return result{}, err
	}
	defer d.stop()
	b := &bench{daemon: d, scratch: scratch, ctx: ctx, scale: o.scale}
	if w.prepare != nil {
		if err := w.prepare(b); err != nil {
			return result{}, err
		}
	}
	syscall.Sync() // or what was prepared is written while the clock runs
	profiled, err := d.profile(ctx, o.perf, w.name)
	if err != nil {
		return result{}, err
	}
	cpu := d.cpu()
	begin := time.Now()
	operations, err := w.run(b)
	took := time.Since(begin)
	profiled()
	if err != nil {
		return result{}, err
	}
	r := result{value: operations / took.Seconds(), cpu: (d.cpu() - cpu) / operations}
	if w.read != nil {
		r.value = w.read(b, operations, took)
	}
	if w.further != nil {
		r.further = w.further(b)
	}
	return r, nil
}

func seconds(_ *bench, _ float64, took time.Duration) float64 { return took.Seconds() }

func milliseconds(_ *bench, _ float64, took time.Duration) float64 { return took.Seconds() * 1000 }

func megabytes(_ *bench, operations float64, took time.Duration) float64 {
	return operations / 1e6 / took.Seconds()
}

// workloads are the rows, in order.
var workloads = []workload{
	{name: "start to first reply", unit: "ms", lessIsBetter: true, run: nothing,
		read: func(b *bench, _ float64, _ time.Duration) float64 { return b.started.Seconds() * 1000 }},
	{name: "connect, one query, close", unit: "/s", run: connects(1)},
	{name: "the same, 16 clients", unit: "/s", run: connects(16)},
	{name: "idle connection", unit: "KB", lessIsBetter: true, run: idleConnections, read: stored},
	{name: "idle daemon", unit: "MB", lessIsBetter: true, run: nothing,
		read: func(b *bench, _ float64, _ time.Duration) float64 { return b.memory() / 1e6 }},
	{name: "path info of 20,000 paths, 1 client", unit: "/s", prepare: fill(10), run: pathInfo(1)},
	{name: "path info of 20,000 paths, 8 clients", unit: "/s", prepare: fill(10), run: pathInfo(8)},
	{name: "the same after a restart, 1 client", unit: "/s", prepare: fillAndForget(10), run: pathInfo(1)},
	{name: "validity, 1 client", unit: "/s", prepare: fill(1), run: validity},
	{name: "temporary roots", unit: "/s", prepare: fill(1), run: tempRoots},
	{name: "valid among 20,000", unit: "ms", lessIsBetter: true, prepare: fillSorted(1), run: validPaths, read: milliseconds},
	{name: "import 20,000 tiny paths in a batch", unit: "/s", prepare: imports(20000), run: importBatch},
	{name: "import tiny paths one by one", unit: "/s", prepare: imports(3000), run: importSingly},
	{name: "texts one by one", unit: "/s", run: texts(1)},
	{name: "texts by 8 clients", unit: "/s", run: texts(8)},
	{name: "add a file of 1 GiB", unit: "MB/s", prepare: prepareFile, run: addFile, read: megabytes},
	{name: "read it back", unit: "MB/s", prepare: keepFile, run: readBack, read: megabytes},
	{name: "add a tree of 30,000 files", unit: "files/s", prepare: prepareTree, run: addTree},
	{name: "read it back, files", unit: "files/s", prepare: keepTree, run: readTree},
	{name: "missing among 5,000 derivations", unit: "s", lessIsBetter: true, prepare: derivations(5000), run: missing, read: seconds},
	{name: "300 trivial builds, 2 slots", unit: "/s", prepare: derivations(300), run: builds(2)},
	{name: "300 trivial builds, 8 slots", unit: "/s", prepare: derivations(300), run: builds(8)},
	{name: "75 builds in one request", unit: "/s", prepare: derivations(75), run: builds(2)},
	{name: "1,200 builds in one request", unit: "/s", prepare: derivations(1200), run: builds(2)},
	{name: "chain of 60", unit: "/s", prepare: chain(60), run: builds(2)},
	{name: "8 clients with 40 builds each", unit: "/s", prepare: derivations(320), run: clientsBuild(8)},
	{name: "300 outputs already valid", unit: "/s", prepare: built(300), run: builds(2)},
	{name: "2,000 derivations by a client, daemon / direct", unit: "ratio", lessIsBetter: true, needsClient: true, run: instantiate, read: stored},
}

func nothing(*bench) (float64, error) { return 1, nil }
