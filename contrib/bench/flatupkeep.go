package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// A table as that of [flat], for what looks at every file: verifying and deduplicating. Each path is a file with its own
// number.

// flatUpkeep prints the table.
func flatUpkeep(ctx context.Context, scratch *scratch, daemons []string, sizes []int) error {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprint(out, "daemon\tpaths\tidle, MB")
	for _, what := range []string{"existence", "contents", "optimise", "again"} {
		fmt.Fprintf(out, "\t%s, s\tCPU us/path\tpeak, MB", what)
	}
	fmt.Fprintln(out)
	for i, binary := range daemons {
		for _, n := range sizes {
			if err := flatUpkeepRow(ctx, scratch, out, binary, i, n); err != nil {
				return fmt.Errorf("%s, %d paths: %w", binary, n, err)
			}
			out.Flush()
		}
	}
	return nil
}

func flatUpkeepRow(ctx context.Context, scratch *scratch, out *tabwriter.Writer, binary string, i, n int) error {
	d, err := start(ctx, scratch, binary, &config{})
	if err != nil {
		return err
	}
	defer d.stop()
	b := &bench{daemon: d, scratch: scratch, ctx: ctx, scale: 1, state: &filled{paths: n}}
	d.end()
	paths, err := fakeStore(d, n)
	if err != nil {
		return err
	}
	if err := number(d, paths); err != nil {
		return err
	}
	if err := d.run(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d\t%d\t%.1f", i, n, b.memory()/1e6)
	for _, work := range []func() error{
		func() error { return verify(b, false) },
		func() error { return verify(b, true) },
		func() error { _, err := optimise(b); return err },
		func() error { _, err := optimise(b); return err },
	} {
		if err := b.flatCollect(out, n, work); err != nil {
			return err
		}
	}
	fmt.Fprintln(out)
	return nil
}

// number gives each path of a store its number as contents, and the database their hash.
func number(d *daemon, paths []storepath.Path) (err error) {
	conn, err := sqlite.OpenConn(filepath.Join(d.dir, "var/db/db.sqlite"), sqlite.OpenReadWrite)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := numberRows(conn, storepath.Dir(d.storeDir()), paths); err != nil {
		return err
	}
	return sqlitex.ExecuteTransient(conn, "pragma wal_checkpoint(truncate)", nil)
}

func numberRows(conn *sqlite.Conn, dir storepath.Dir, paths []storepath.Path) (err error) {
	defer sqlitex.Save(conn)(&err)
	row, err := conn.Prepare("update ValidPaths set hash = ?, narSize = ? where id = ?")
	if err != nil {
		return err
	}
	for i, p := range paths {
		hash, size, err := numberedFile(dir.Print(p), i)
		if err != nil {
			return err
		}
		row.BindText(1, hash.Format(nixhash.Base16, true))
		row.BindInt64(2, int64(size))
		row.BindInt64(3, int64(i+1))
		if _, err := row.Step(); err != nil {
			return err
		}
		if err := row.Reset(); err != nil {
			return err
		}
	}
	return nil
}

// numberedFile gives an empty file its number and canonical metadata. It tells of the file's archive.
func numberedFile(path string, i int) (nixhash.Hash, int, error) {
	text := fmt.Sprintf("%08d", i)
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o444), os.Chmod(path, 0o444), os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0))); err != nil {
		return nixhash.Hash{}, 0, err
	}
	var all bytes.Buffer
	w := nar.NewWriter(&all)
	err := errors.Join(w.Regular("", false, uint64(len(text)), strings.NewReader(text)), w.Close())
	return nixhash.Of(nixhash.SHA256, all.String()), all.Len(), err
}
