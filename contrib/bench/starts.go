package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"nixdaemon/protocol/client"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// A table of how long a daemon that does not run takes to its first answer, on stores of different sizes: warm, and cold,
// when nothing of its program, of what that loads and of the database is in the page cache. All daemons start on the
// same store, which is rows alone: what is asked is whether a path is valid.

// startSizes are those of the stores.
var startSizes = []int{0, 10_000, 1_000_000}

// manyStarts is how often each start is measured.
const manyStarts = 7

// starts prints the table.
func starts(ctx context.Context, scratch *scratch, daemons []string, scale int) error {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "daemon\tpaths\tfirst answer warm, ms\tslowest\tcold, ms\tslowest\tCPU, ms")
	for _, n := range startSizes {
		n /= scale
		d, path, err := bareStore(ctx, scratch, daemons[0], n)
		if err != nil {
			return fmt.Errorf("store of %d paths: %w", n, err)
		}
		for i, binary := range daemons {
			if err := startRow(ctx, out, d, i, binary, path, n); err != nil {
				return fmt.Errorf("%s, %d paths: %w", binary, n, err)
			}
			out.Flush()
		}
		if err := os.RemoveAll(filepath.Join(d.dir, "var/db")); err != nil {
			return err
		}
	}
	return nil
}

func startRow(ctx context.Context, out *tabwriter.Writer, d *daemon, i int, binary string, path storepath.Path, n int) error {
	d.become(binary)
	if _, err := d.startOnce(ctx, path); err != nil { // whatever it does once, such as making directories
		return err
	}
	files := append(d.mapped(), d.database()...)
	d.end()
	fmt.Fprintf(out, "%d\t%d", i, n)
	var cpu []float64
	for _, cold := range []bool{false, true} {
		var took []float64
		for range manyStarts {
			if cold {
				if err := evict(files); err != nil {
					return err
				}
			}
			one, err := d.startOnce(ctx, path)
			if err != nil {
				return err
			}
			took = append(took, one.Seconds()*1000)
			cpu = append(cpu, d.precise()*1000)
			d.end()
		}
		slices.Sort(took)
		fmt.Fprintf(out, "\t%.1f\t%.1f", took[len(took)/2], took[len(took)-1])
	}
	slices.Sort(cpu)
	fmt.Fprintf(out, "\t%.1f\n", cpu[len(cpu)/2])
	return nil
}

// startOnce starts the daemon and asks it for a path, which must be valid unless it is zero. The daemon goes on.
func (d *daemon) startOnce(ctx context.Context, path storepath.Path) (time.Duration, error) {
	if err := d.spawn(); err != nil {
		return 0, err
	}
	begin := time.Now()
	err := d.await(ctx, func(o client.Options) error {
		o.MaxConns = 1
		c := client.New(o)
		defer c.Close()
		asked := path
		if asked.IsZero() {
			asked = somePath()
		}
		valid, err := c.IsValid(ctx, asked)
		if err == nil && valid == path.IsZero() {
			err = fmt.Errorf("%s: valid is %v", asked.Base(), valid)
		}
		return err
	})
	if err != nil {
		d.end()
	}
	return time.Since(begin), err
}

// bareStore makes a store of so many rows by a daemon that is ended again, and gives one of its paths; zero if it has none.
func bareStore(ctx context.Context, scratch *scratch, binary string, n int) (*daemon, storepath.Path, error) {
	d, err := start(ctx, scratch, binary, &config{})
	if err != nil {
		return nil, storepath.Path{}, err
	}
	d.end()
	dir, paths := storepath.Dir(d.storeDir()), make([]storepath.Path, n)
	for i := range paths {
		if paths[i], err = dir.MakePath("output:out", nixhash.Of(nixhash.SHA256, fmt.Sprint(i)), fmt.Sprintf("path-%d", i)); err != nil {
			return nil, storepath.Path{}, err
		}
	}
	conn, err := sqlite.OpenConn(d.database()[0], sqlite.OpenReadWrite)
	if err != nil {
		return nil, storepath.Path{}, err
	}
	err = insertRows(conn, dir, paths)
	if err == nil {
		err = sqlitex.ExecuteTransient(conn, "pragma wal_checkpoint(truncate)", nil)
	}
	if err = errors.Join(err, conn.Close()); err != nil || n == 0 {
		return d, storepath.Path{}, err
	}
	return d, paths[n/2], nil
}

// database are the files of the daemon's database, as far as there are any.
func (d *daemon) database() []string {
	found, _ := filepath.Glob(filepath.Join(d.dir, "var/db/db.sqlite*"))
	return found
}

// mapped are the files that the daemon's processes are made of.
func (d *daemon) mapped() []string {
	seen := make(map[string]bool)
	for _, pid := range tree(d.cmd.Process.Pid) {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) == 6 && strings.HasPrefix(fields[5], "/") {
				seen[fields[5]] = true
			}
		}
	}
	var files []string
	for file := range seen {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			files = append(files, file)
		}
	}
	return files
}

// precise is the time on a CPU that the daemon's processes have had so far, in seconds, those that have ended left out.
func (d *daemon) precise() float64 {
	var nanoseconds float64
	for _, pid := range tree(d.cmd.Process.Pid) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, task := range tasks {
			var n float64
			if text, err := os.ReadFile(task); err == nil {
				fmt.Sscan(string(text), &n)
			}
			nanoseconds += n
		}
	}
	return nanoseconds / 1e9
}
