// Command bench measures a daemon beside others: the same requests, over the
// socket, in turn, each daemon on a fresh store of its own. It prints the median
// of each figure and the ratios of wall time and of CPU time over the daemon's
// whole process tree.
//
//	bench -ours ./nix-daemon -theirs /path/a/nix-daemon,/path/b/nix-daemon
//
// The script run beside it builds ours and finds the others.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.ours, "ours", "", "our nix-daemon")
	flag.StringVar(&o.theirs, "theirs", "", "other nix-daemons, separated by commas; each may have a file env two folders up to be sourced")
	flag.StringVar(&o.only, "only", "", "run workloads whose name matches this expression")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each workload runs on each daemon")
	flag.StringVar(&o.flat, "flat", "", "instead: the cost of start-up, roots and collections in stores of so many paths, for example 10000,100000,1000000")
	flag.BoolVar(&o.resources, "resources", false, "instead: what the daemons take idle, with clients, and while they build")
	flag.StringVar(&o.flatUpkeep, "flat-upkeep", "", "the same for the cost of verifying and deduplicating")
	flag.DurationVar(&o.flatLimit, "flat-limit", 2*time.Minute, "how long one cell of those two tables may take")
	quick := flag.Bool("quick", false, "a tenth of each workload, to see that it runs")
	flag.StringVar(&o.perf, "perf", "", "folder for profiles of each daemon during what is timed, made by perf(1)")
	flag.Parse()
	o.scale = 1
	if *quick {
		o.scale = 10
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the flags say; the profiles' folder may be "".
type options struct {
	ours, theirs, only, perf, flat, flatUpkeep string
	rounds, scale                              int
	resources                                  bool
	flatLimit                                  time.Duration
}

func run(ctx context.Context, o options) error {
	if o.ours == "" {
		return fmt.Errorf("which daemon is ours? give -ours")
	}
	wanted, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	daemons := []string{o.ours}
	if o.theirs != "" {
		daemons = append(daemons, strings.Split(o.theirs, ",")...)
	}
	scratch, err := newScratch(daemons[1:])
	if err != nil {
		return err
	}
	defer scratch.remove()
	if o.resources {
		return resources(ctx, scratch, daemons, o.scale)
	}
	if o.flat != "" || o.flatUpkeep != "" {
		return flat(ctx, scratch, daemons, o)
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	header(out, daemons)
	for _, w := range slices.Concat(workloads, substitutions(), uploads(), isolated(), collections(), upkeep(), peers()) {
		if !wanted.MatchString(w.name) {
			continue
		}
		if w.needsClient && scratch.client == "" {
			fmt.Fprintf(os.Stderr, "bench: %s: skipped, no nix-instantiate beside another daemon\n", w.name)
			continue
		}
		results, err := alternate(ctx, w, scratch, daemons, o)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		row(out, w, results)
		out.Flush()
	}
	return nil
}

func header(out *tabwriter.Writer, daemons []string) {
	fmt.Fprintf(out, "workload\tunit\tours\tCPU us")
	for i := range daemons[1:] {
		fmt.Fprintf(out, "\tother %d\tratio\tCPU ratio", i+1)
	}
	fmt.Fprintln(out)
	for i, d := range daemons[1:] {
		fmt.Fprintf(os.Stderr, "other %d is %s\n", i+1, d)
	}
}

// result is one run of a workload.
type result struct {
	// value is the figure in the workload's unit.
	value float64
	// cpu is in seconds, per operation.
	cpu float64
	// further are the figures of the rows that come with the workload's own.
	further []float64
}

// alternate runs a workload on each daemon in turn, rounds times.
func alternate(ctx context.Context, w workload, scratch *scratch, daemons []string, o options) ([][]result, error) {
	results := make([][]result, len(daemons))
	for range o.rounds {
		for i, binary := range daemons {
			r, err := once(ctx, w, scratch, binary, o)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", binary, err)
			}
			results[i] = append(results[i], r)
		}
	}
	return results, nil
}

// row prints the medians; CPU time is ours for one operation. A ratio above 1 means that ours is better, whether
// the unit counts time, memory or speed.
func row(out *tabwriter.Writer, w workload, results [][]result) {
	cpu := func(r result) float64 { return r.cpu }
	ours := median(results[0], cpu)
	cells(out, w, w.name, fmt.Sprintf("%.3g", ours*1e6), results, func(r result) float64 { return r.value }, func(other []result) string {
		if ours > 0 {
			return fmt.Sprintf("%.2f", median(other, cpu)/ours)
		}
		return "-"
	})
	for i, name := range w.also {
		cells(out, w, name, "-", results, func(r result) float64 { return r.further[i] }, func([]result) string { return "-" })
	}
}

// cells prints a row of one of the figures.
func cells(out *tabwriter.Writer, w workload, name, cpu string, results [][]result, value func(result) float64, cpuRatio func([]result) string) {
	ours := median(results[0], value)
	fmt.Fprintf(out, "%s\t%s\t%s\t%s", name, w.unit, figure(ours), cpu)
	for _, other := range results[1:] {
		theirs := median(other, value)
		ratio := ours / theirs
		if w.lessIsBetter {
			ratio = theirs / ours
		}
		fmt.Fprintf(out, "\t%s\t%.2f\t%s", figure(theirs), ratio, cpuRatio(other))
	}
	fmt.Fprintln(out)
}

func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 1:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func median(results []result, of func(result) float64) float64 {
	values := make([]float64, len(results))
	for i, r := range results {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
