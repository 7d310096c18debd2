package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// upkeep is a row about what looks at every file: verifying and deduplicating. Each path is a file with its own number.
func (t *flatTable) upkeep(ctx context.Context, b *bench, n int) error {
	paths, err := fakeStore(b.daemon, n)
	if err != nil {
		return err
	}
	if err := number(b.daemon, paths); err != nil {
		return err
	}
	b.state = &filled{paths: n}
	if err := b.run(ctx); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "\t%.1f", b.memory()/1e6)
	deduplicate := func() error { _, err := optimise(b); return err }
	for _, c := range []struct {
		name string
		work func() error
	}{
		{"existence", func() error { return verify(b, false) }},
		{"contents", func() error { return verify(b, true) }},
		{"optimise", deduplicate},
		{"again", deduplicate},
	} {
		if err := t.cell(b, c.name, n, c.work); err != nil {
			return err
		}
	}
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
