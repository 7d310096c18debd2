package db

import (
	"context"
	"strings"

	"zombiezen.com/go/sqlite"
)

// The queries below are methods of conn, so that a Tx has them, too, and sees its own changes.

// QueryPath returns the row of path and its references, and whether there is one.
func (c *conn) QueryPath(path string) (row PathRow, found bool, err error) {
	return c.queryPath(path, func(id int64) ([]string, error) { return c.strings(stmtQueryReferences, id) })
}

func (c *conn) queryPath(path string, references func(id int64) ([]string, error)) (row PathRow, found bool, err error) {
	s, err := c.stmt(stmtQueryPath)
	if err != nil {
		return PathRow{}, false, err
	}
	// As long as this statement is not reset, the next one reads the same snapshot and needs no lock of its own.
	defer s.Reset()
	s.BindText(1, path)
	if found, err = s.Step(); !found || err != nil {
		return PathRow{}, false, err
	}
	row = scanPath(s, path)
	row.References, err = references(row.ID)
	return row, true, err
}

// PathID returns the number of path's row, and whether there is one.
func (c *conn) PathID(path string) (id int64, found bool, err error) {
	s, err := c.stmt(stmtQueryID)
	if err != nil {
		return 0, false, err
	}
	s.BindText(1, path)
	if found, err = s.Step(); found {
		id = s.ColumnInt64(0)
	}
	s.Reset() // repeats the error of Step, if any
	return id, found, err
}

// IsValid reports whether path has a row.
func (c *conn) IsValid(path string) (bool, error) {
	_, found, err := c.PathID(path)
	return found, err
}

// Referrers returns the valid paths that refer to path, itself among them if it does. None if path is not valid.
func (c *conn) Referrers(path string) ([]string, error) {
	return c.strings(stmtQueryReferrers, path)
}

// ReferencesOf returns the paths that path refers to, or a NotValidError.
func (c *conn) ReferencesOf(path string) ([]string, error) {
	id, found, err := c.PathID(path)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, &NotValidError{path}
	}
	return c.strings(stmtQueryReferences, id)
}

// ValidDerivers returns the valid derivations that have path among their known outputs.
func (c *conn) ValidDerivers(path string) ([]string, error) {
	return c.strings(stmtQueryDerivers, path)
}

// DerivationOutputs returns the known output paths of the valid derivation drv by output name, or a NotValidError.
func (c *conn) DerivationOutputs(drv string) (map[string]string, error) {
	id, found, err := c.PathID(drv)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, &NotValidError{drv}
	}
	outputs := make(map[string]string)
	err = c.each(stmtQueryOutputs, id, func(s *sqlite.Stmt) error {
		outputs[s.ColumnText(0)] = s.ColumnText(1)
		return nil
	})
	return outputs, err
}

// PathFromHashPart returns the first valid path that begins with prefix
// (store directory, slash and hash part), and whether there is one.
func (c *conn) PathFromHashPart(prefix string) (path string, found bool, err error) {
	err = c.each(stmtQueryHashPart, prefix, func(s *sqlite.Stmt) error {
		path = s.ColumnText(0)
		return nil
	})
	if err != nil || !strings.HasPrefix(path, prefix) {
		return "", false, err
	}
	return path, true, nil
}

// QueryPath returns the row of path and its references, and whether there is one.
func (db *DB) QueryPath(ctx context.Context, path string) (row PathRow, found bool, err error) {
	err = db.read(ctx, func(c *conn) (err error) {
		generation := db.Generation() // before the question, so that a later change is noticed next time
		row, found, err = c.queryPath(path, func(id int64) ([]string, error) {
			return c.names.references(c, generation, id)
		})
		return err
	})
	return row, found, err
}

// IsValid reports whether path has a row.
func (db *DB) IsValid(ctx context.Context, path string) (valid bool, err error) {
	err = db.read(ctx, func(c *conn) (err error) { valid, err = c.IsValid(path); return err })
	return valid, err
}

// Referrers returns the valid paths that refer to path, itself among them if it does. None if path is not valid.
func (db *DB) Referrers(ctx context.Context, path string) (paths []string, err error) {
	err = db.read(ctx, func(c *conn) (err error) { paths, err = c.Referrers(path); return err })
	return paths, err
}

// ReferencesOf returns the paths that path refers to, or a NotValidError.
func (db *DB) ReferencesOf(ctx context.Context, path string) (paths []string, err error) {
	err = db.read(ctx, func(c *conn) (err error) { paths, err = c.ReferencesOf(path); return err })
	return paths, err
}

// ValidDerivers returns the valid derivations that have path among their known outputs.
func (db *DB) ValidDerivers(ctx context.Context, path string) (paths []string, err error) {
	err = db.read(ctx, func(c *conn) (err error) { paths, err = c.ValidDerivers(path); return err })
	return paths, err
}

// DerivationOutputs returns the known output paths of the valid derivation drv by output name, or a NotValidError.
func (db *DB) DerivationOutputs(ctx context.Context, drv string) (outputs map[string]string, err error) {
	err = db.read(ctx, func(c *conn) (err error) { outputs, err = c.DerivationOutputs(drv); return err })
	return outputs, err
}

// PathFromHashPart returns the first valid path that begins with prefix
// (store directory, slash and hash part), and whether there is one.
func (db *DB) PathFromHashPart(ctx context.Context, prefix string) (path string, found bool, err error) {
	err = db.read(ctx, func(c *conn) (err error) { path, found, err = c.PathFromHashPart(prefix); return err })
	return path, found, err
}

// AllPaths returns every valid path, in no particular order.
func (db *DB) AllPaths(ctx context.Context) (paths []string, err error) {
	err = db.read(ctx, func(c *conn) error {
		paths = nil
		return c.each(stmtListPaths, nil, func(s *sqlite.Stmt) error {
			paths = append(paths, s.ColumnText(0))
			return checkEvery(ctx, len(paths))
		})
	})
	return paths, err
}

// checkEvery looks at ctx now and then: often enough to be interrupted, seldom enough to cost nothing.
func checkEvery(ctx context.Context, n int) error {
	if n%1024 == 0 && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
