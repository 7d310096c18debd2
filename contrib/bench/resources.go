package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// A table of what a daemon takes while it does nothing, waits for clients and
// builds. That of starts.go follows it.

// settle is how long a daemon may take to give back what it does not need.
const settle = 3 * time.Second

// mostBuilds is how many builders run at once.
const mostBuilds = 8

// resources prints the table.
func resources(ctx context.Context, scratch *scratch, daemons []string, scale int) error {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "daemon\tidle, MB\tof that supervisor\twith 8 builds, MB\t100 clients, KB each\t1,000 clients, KB each\tdescriptors\tafter 10,000 connections\tthreads\tafter\tgoroutines\tafter\tidle after, MB")
	for i, binary := range daemons {
		if err := resourceRow(ctx, scratch, out, binary, i, scale); err != nil {
			return fmt.Errorf("%s: %w", binary, err)
		}
		out.Flush()
	}
	return starts(ctx, scratch, daemons, scale)
}

func resourceRow(ctx context.Context, scratch *scratch, out *tabwriter.Writer, binary string, i, scale int) error {
	d, err := start(ctx, scratch, binary, &config{jobs: mostBuilds})
	if err != nil {
		return err
	}
	defer d.stop()
	time.Sleep(settle)
	b := &bench{daemon: d, scratch: scratch, ctx: ctx, scale: 1}
	fmt.Fprintf(out, "%d\t%.1f\t%.1f", i, b.memory()/1e6, pss(d.cmd.Process.Pid)/1e6)
	building, err := b.whileBuilding(mostBuilds)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\t%.1f", building/1e6)
	for _, n := range []int{100, 1000} {
		each, err := b.perClient(max(n/scale, 1))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\t%.1f", each/1e3)
	}
	time.Sleep(settle) // for the clients before to be gone
	files, threads, goroutines := b.descriptors(), b.threads(), b.goroutines()
	for range 10000 / scale {
		c, err := client.Open(ctx, d.options())
		if err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	time.Sleep(settle)
	fmt.Fprintf(out, "\t%d\t%d\t%d\t%d\t%s\t%s\t%.1f\n", files, b.descriptors(), threads, b.threads(), goroutines, b.goroutines(), b.memory()/1e6)
	return nil
}

// perClient is what each of so many clients takes that has asked something and
// waits, in bytes.
func (b *bench) perClient(n int) (float64, error) {
	before := b.memory()
	clients := make([]*client.Client, n)
	for i := range clients {
		o := b.options()
		o.MaxConns = 1
		clients[i] = client.New(o)
		defer clients[i].Close()
		if _, err := clients[i].IsValid(b.ctx, somePath()); err != nil {
			return 0, err
		}
	}
	time.Sleep(settle)
	return (b.memory() - before) / float64(n), nil
}

func somePath() storepath.Path {
	p, err := storepath.ParseBase("00000000000000000000000000000000-x")
	if err != nil {
		panic(err)
	}
	return p
}

// whileBuilding is what the daemon's own processes take while so many builders
// run, in bytes.
func (b *bench) whileBuilding(n int) (float64, error) {
	c := b.pool(1, 1)
	defer c.Close()
	gate := filepath.Join(b.dir, "gate")
	var list []derivation.DerivedPath
	for i := range n {
		d, err := trivial(b, fmt.Sprintf("waits-%d", i), storepath.Path{})
		if err != nil {
			return 0, err
		}
		d.Args = []string{"-c", fmt.Sprintf("echo > %s.%d; while ! [ -e %s ]; do /bin/sleep 0.1; done; echo > $out", gate, i, gate)}
		d.Outputs["out"], d.Env["out"] = derivation.Output{Kind: derivation.Deferred}, ""
		h := &derivation.Hasher{Dir: storepath.Dir(b.storeDir()), Memo: b.memo()}
		if err := h.FillOutputPaths(b.ctx, d); err != nil {
			return 0, err
		}
		p, err := addDerivation(b, c, d)
		if err != nil {
			return 0, err
		}
		list = append(list, requests([]storepath.Path{p})...)
	}
	done := make(chan error, n)
	for i := range n { // each a client of its own: a client may not have more slots than the daemon gives it
		go func() {
			c := b.pool(1, 1)
			defer c.Close()
			done <- c.BuildPaths(b.ctx, list[i:i+1], derivation.BuildNormal)
		}()
	}
	begun := 0
	for deadline := time.Now().Add(30 * time.Second); begun < n && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		found, _ := filepath.Glob(gate + ".*")
		begun = len(found)
	}
	time.Sleep(settle)
	memory := b.ownMemory()
	errs := []error{os.WriteFile(gate, nil, 0o644)}
	for range n {
		errs = append(errs, <-done)
	}
	return memory, errors.Join(errs...)
}

// ownMemory is memory without builders and what they have started.
func (d *daemon) ownMemory() float64 {
	var total float64
	for _, pid := range tree(d.cmd.Process.Pid) {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && sameProgram(exe, d.binary) {
			total += pss(pid)
		}
	}
	return total
}

func sameProgram(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// descriptors are those that the daemon and all its descendants have open.
func (d *daemon) descriptors() (n int) {
	for _, pid := range tree(d.cmd.Process.Pid) {
		open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		n += len(open)
	}
	return n
}

// goroutines are those of the server, as its metrics have it; "-" where there are none to be had.
func (d *daemon) goroutines() string {
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := client.Unix(filepath.Join(d.dir, "var/status-socket/socket"))(ctx)
		if err != nil {
			return nil, err
		}
		return conn.(net.Conn), nil
	}}
	resp, err := (&http.Client{Transport: t}).Get("http://daemon/metrics")
	if err != nil {
		return "-"
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if n, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			return n
		}
	}
	return "-"
}

// threads are those of the daemon and all its descendants.
func (d *daemon) threads() (n int) {
	for _, pid := range tree(d.cmd.Process.Pid) {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "Threads:"); ok {
				count, _ := strconv.Atoi(strings.TrimSpace(rest))
				n += count
			}
		}
	}
	return n
}
