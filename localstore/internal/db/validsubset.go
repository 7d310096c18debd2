package db

import (
	"context"
	"slices"

	"zombiezen.com/go/sqlite"
)

// Looking one path up costs about as much as reading this many names from the index in order.
// Below the least count it does not matter.
const (
	scanPerLookup = 12
	scanLeast     = 64
)

// ValidSubset returns those of paths that are valid, in the order given, as of one moment.
func (db *DB) ValidSubset(ctx context.Context, paths []string) (valid []string, err error) {
	err = db.read(ctx, func(c *conn) (err error) { valid, err = c.validSubset(ctx, paths); return err })
	return valid, err
}

func (c *conn) validSubset(ctx context.Context, paths []string) (valid []string, err error) {
	err = c.snapshot(func() error {
		found := make(map[string]bool, len(paths))
		if err := c.markValid(ctx, paths, found); err != nil {
			return err
		}
		valid = slices.Clone(paths)
		valid = slices.DeleteFunc(valid, func(path string) bool { return !found[path] })
		return nil
	})
	return valid, err
}

func (c *conn) markValid(ctx context.Context, paths []string, found map[string]bool) error {
	if len(paths) >= scanLeast {
		var maxID int64 // at least the number of rows
		err := c.each(stmtQueryMaxID, nil, func(s *sqlite.Stmt) error { maxID = s.ColumnInt64(0); return nil })
		if err != nil {
			return err
		}
		if maxID <= int64(len(paths))*scanPerLookup {
			return c.markByScan(ctx, paths, found)
		}
	}
	return c.markByLookup(ctx, paths, found)
}

// markByLookup goes in the order of the index, whose pages it then reads once.
func (c *conn) markByLookup(ctx context.Context, paths []string, found map[string]bool) error {
	for i, path := range slices.Sorted(slices.Values(paths)) {
		valid, err := c.IsValid(path)
		if err != nil {
			return err
		}
		if valid {
			found[path] = true
		}
		if err := checkEvery(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// markByScan reads every valid path.
func (c *conn) markByScan(ctx context.Context, paths []string, found map[string]bool) error {
	for _, path := range paths {
		found[path] = false
	}
	var buf []byte
	row := 0
	return c.each(stmtListPaths, nil, func(s *sqlite.Stmt) error {
		n := s.ColumnLen(0)
		if n > len(buf) {
			buf = make([]byte, 2*n)
		}
		s.ColumnBytes(0, buf)
		if _, wanted := found[string(buf[:n])]; wanted {
			found[string(buf[:n])] = true
		}
		row++
		return checkEvery(ctx, row)
	})
}

// snapshot runs f, which only reads, in one transaction.
func (c *conn) snapshot(f func() error) (err error) {
	if err := c.exec(stmtBeginRead, nil); err != nil {
		return err
	}
	defer func() {
		if e := c.exec(stmtRollback, nil); err == nil {
			err = e
		}
	}()
	return f()
}
