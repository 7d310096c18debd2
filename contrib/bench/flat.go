package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"nixdaemon/protocol"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// A table of what the same work costs on stores of different sizes. The stores are made without the daemons: rows by
// SQL, and an empty file for each path, so that what is measured is the cost for each path and not that of its contents.

// parseSizes reads numbers separated by commas.
func parseSizes(text string) (sizes []int, err error) {
	for field := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 4000 {
			return nil, fmt.Errorf("size of a store %q: not a number from 4000 on", field)
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}

// flat prints the tables of stores of different sizes that were asked for.
func flat(ctx context.Context, scratch *scratch, daemons []string, o options) error {
	const cost = ", s\tCPU us/path\tpeak, MB"
	t := &flatTable{out: tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0), scratch: scratch, daemons: daemons, limit: o.flatLimit, perf: o.perf}
	var err error
	if o.flat != "" {
		if t.sizes, err = parseSizes(o.flat); err != nil {
			return err
		}
		header := "start, ms\tidle, MB\t2,000 roots, ms\tCPU, ms\tmark" + cost + "\tcollect half" + cost
		if err := t.print(ctx, header, t.collecting); err != nil {
			return err
		}
	}
	if o.flatUpkeep == "" {
		return nil
	}
	if t.sizes, err = parseSizes(o.flatUpkeep); err != nil {
		return err
	}
	return t.print(ctx, "idle, MB\texistence"+cost+"\tcontents"+cost+"\toptimise"+cost+"\tagain"+cost, t.upkeep)
}

// flatTable is one such table in the making.
type flatTable struct {
	out     *tabwriter.Writer
	scratch *scratch
	daemons []string // the first is ours
	sizes   []int
	// limit is how long one cell may take. What takes longer is given up, and its daemon started again for the next.
	limit time.Duration
	// perf is the folder for profiles of each cell; "" for none.
	perf string
}

// print prints the table: a row of cells for each daemon and size.
func (t *flatTable) print(ctx context.Context, header string, row func(context.Context, *bench, int) error) error {
	defer t.out.Flush()
	fmt.Fprintln(t.out, "daemon\tpaths\t"+header)
	for _, n := range t.sizes {
		for i, binary := range t.daemons {
			name := "ours"
			if i > 0 {
				name = fmt.Sprintf("other %d", i)
			}
			fmt.Fprintf(t.out, "%s\t%d", name, n)
			if err := t.row(ctx, binary, n, row); err != nil {
				return fmt.Errorf("%s, %d paths: %w", binary, n, err)
			}
			fmt.Fprintln(t.out)
			fmt.Fprintf(os.Stderr, "done: %s, %d paths\n", name, n)
		}
	}
	return nil
}

func (t *flatTable) row(ctx context.Context, binary string, n int, row func(context.Context, *bench, int) error) error {
	d, err := start(ctx, t.scratch, binary, &config{})
	if err != nil {
		return err
	}
	defer os.RemoveAll(d.dir) // the next one needs the space
	defer d.stop()
	d.end()
	return row(ctx, &bench{daemon: d, scratch: t.scratch, ctx: ctx, scale: 1}, n)
}

// collecting is the row about start-up, roots and collections.
func (t *flatTable) collecting(ctx context.Context, b *bench, n int) error {
	paths, err := fakeStore(b.daemon, n)
	if err != nil {
		return err
	}
	if err := errors.Join(b.links(paths, 2000), b.root("all", paths[n-1])); err != nil {
		return err
	}
	if err := b.run(ctx); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "\t%.0f\t%.1f", b.started.Seconds()*1000, b.memory()/1e6)
	cpu := b.cpu()
	took, _, err := b.timed(func() error { _, err := findRoots(b); return err })
	if err != nil {
		return err
	}
	fmt.Fprintf(t.out, "\t%.1f\t%.0f", took.Seconds()*1000, (b.cpu()-cpu)*1000)
	if err := t.cell(b, "mark", n, func() error { _, err := mark(b); return err }); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(b.dir, "var/gcroots/all")); err != nil {
		return err
	}
	if err := b.root("half", paths[n/2]); err != nil {
		return err
	}
	return t.cell(b, "half", n-n/2-1, func() error {
		res, err := b.gc(protocol.GCDeleteDead)
		if err == nil && len(res.Paths) != n-n/2-1 {
			err = fmt.Errorf("%d paths deleted; the daemon's log:\n%s", len(res.Paths), b.log())
		}
		return err
	})
}

// cell prints what f costs for each of n paths, as far as the limit allows. Its name is for profiles.
func (t *flatTable) cell(b *bench, name string, n int, f func() error) error {
	whole := b.ctx
	defer func() { b.ctx = whole }()
	ctx, cancel := context.WithTimeout(whole, t.limit)
	defer cancel()
	b.ctx = ctx
	profiled, err := b.profile(ctx, t.perf, fmt.Sprintf("%s %d", name, n))
	if err != nil {
		return err
	}
	cpu := b.cpu()
	took, peak, err := b.timed(f)
	profiled()
	if ctx.Err() != nil && whole.Err() == nil {
		fmt.Fprintf(t.out, "\t> %.0f\t-\t-", t.limit.Seconds())
		return errors.Join(b.kill(), b.run(whole))
	}
	fmt.Fprintf(t.out, "\t%.2f\t%.1f\t%.0f", took.Seconds(), (b.cpu()-cpu)*1e6/float64(n), peak/1e6)
	return err
}

// timed tells how long f takes, and the most memory that the daemon has meanwhile.
func (b *bench) timed(f func() error) (took time.Duration, peak float64, err error) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			peak = max(peak, b.memory())
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	begin := time.Now()
	err = f()
	took = time.Since(begin)
	close(stop)
	<-stopped
	return took, peak, err
}

// fakeStore fills the store of a daemon that does not run. Each path refers to up to three others, one of them the one
// before.
func fakeStore(d *daemon, n int) ([]storepath.Path, error) {
	dir := storepath.Dir(d.storeDir())
	paths := make([]storepath.Path, n)
	for i := range paths {
		var err error
		if paths[i], err = dir.MakePath("output:out", nixhash.Of(nixhash.SHA256, fmt.Sprint(i)), fmt.Sprintf("path-%d", i)); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(dir.Print(paths[i]), os.O_CREATE|os.O_WRONLY, 0o444)
		if err != nil {
			return nil, err
		}
		f.Close()
	}
	conn, err := sqlite.OpenConn(filepath.Join(d.dir, "var/db/db.sqlite"), sqlite.OpenReadWrite)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	err = insertRows(conn, dir, paths)
	if err == nil {
		err = sqlitex.ExecuteTransient(conn, "pragma wal_checkpoint(truncate)", nil)
	}
	return paths, err
}

func insertRows(conn *sqlite.Conn, dir storepath.Dir, paths []storepath.Path) (err error) {
	defer sqlitex.Save(conn)(&err)
	row, err := conn.Prepare("insert into ValidPaths (id, path, hash, registrationTime, narSize) values (?, ?, ?, 1, 112)")
	if err != nil {
		return err
	}
	hash := "sha256:" + strings.Repeat("0", 64)
	for i, p := range paths {
		row.BindInt64(1, int64(i+1))
		row.BindText(2, dir.Print(p))
		row.BindText(3, hash)
		if _, err := row.Step(); err != nil {
			return err
		}
		if err := row.Reset(); err != nil {
			return err
		}
	}
	edge, err := conn.Prepare("insert or ignore into Refs (referrer, reference) values (?, ?)")
	if err != nil {
		return err
	}
	for i := 1; i < len(paths); i++ {
		for _, to := range []int{i - 1, i / 2, max(0, i-7)} {
			edge.BindInt64(1, int64(i+1))
			edge.BindInt64(2, int64(to+1))
			if _, err := edge.Step(); err != nil {
				return err
			}
			if err := edge.Reset(); err != nil {
				return err
			}
		}
	}
	return nil
}
