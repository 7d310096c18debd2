package db

import (
	"context"

	"zombiezen.com/go/sqlite"
)

// Row numbers are never given out twice (autoincrement), so they tell what was registered after what, whoever did it.

// Inode identifies the opened file of the database: its inode number, and when that was made in nanoseconds since
// 1970, 0 where the file system does not tell.
func (db *DB) Inode() (number uint64, born int64) { return db.opened.Ino, db.born }

// LastID returns the largest number that a row ever had, whether it still exists or not; 0 if there was none. Where a
// foreign hand has left the table of those numbers behind it is that of a row.
func (db *DB) LastID(ctx context.Context) (id int64, err error) {
	err = db.read(ctx, func(c *conn) error {
		id = 0
		return c.each(stmtQueryLastID, nil, func(s *sqlite.Stmt) error {
			id = s.ColumnInt64(0)
			return nil
		})
	})
	return id, err
}

// CountPaths returns how many paths are valid.
func (db *DB) CountPaths(ctx context.Context) (n uint64, err error) {
	err = db.read(ctx, func(c *conn) error {
		return c.each(stmtCountPaths, nil, func(s *sqlite.Stmt) error {
			n = uint64(s.ColumnInt64(0))
			return nil
		})
	})
	return n, err
}

// PathOf returns the path of the row with that number, empty if there is no such row.
func (db *DB) PathOf(ctx context.Context, id int64) (path string, err error) {
	err = db.read(ctx, func(c *conn) error {
		path = ""
		return c.each(stmtQueryName, id, func(s *sqlite.Stmt) error {
			path = s.ColumnText(0)
			return nil
		})
	})
	return path, err
}

// CountBeyond returns how many rows have numbers larger than id.
func (db *DB) CountBeyond(ctx context.Context, id int64) (n uint64, err error) {
	err = db.read(ctx, func(c *conn) error {
		return c.each(stmtCountRowsBeyond, id, func(s *sqlite.Stmt) error {
			n = uint64(s.ColumnInt64(0))
			return nil
		})
	})
	return n, err
}

// RowsBeyond returns the first rows, at most limit, whose numbers are larger than id, in the order of their numbers.
// References are left out.
func (db *DB) RowsBeyond(ctx context.Context, id int64, limit int) ([]PathRow, error) {
	return db.beyond(ctx, stmtListRowsBeyond, id, limit, func(s *sqlite.Stmt) PathRow { return scanPath(s, s.ColumnText(8)) })
}

// NamesBeyond is RowsBeyond with numbers and paths alone, for half of the cost.
func (db *DB) NamesBeyond(ctx context.Context, id int64, limit int) ([]PathRow, error) {
	return db.beyond(ctx, stmtListNamesBeyond, id, limit, func(s *sqlite.Stmt) PathRow {
		return PathRow{ID: s.ColumnInt64(0), Path: s.ColumnText(1)}
	})
}

func (db *DB) beyond(ctx context.Context, query statement, id int64, limit int, scan func(*sqlite.Stmt) PathRow) (rows []PathRow, err error) {
	err = db.read(ctx, func(c *conn) error {
		rows = nil
		s, err := c.stmt(query)
		if err != nil {
			return err
		}
		defer s.Reset()
		s.BindInt64(1, id)
		s.BindInt64(2, int64(limit))
		for {
			more, err := s.Step()
			if err != nil || !more {
				return err
			}
			rows = append(rows, scan(s))
		}
	})
	return rows, err
}

// StillThere tells of each of the rows, which come in the order of their numbers, whether there is one of that number and
// path, as of one moment. Rows that followed one another when they were read lie together: to look for them by their
// paths would visit as many pages of the index as there are paths, and the more the larger the store is.
func (db *DB) StillThere(ctx context.Context, rows []*PathRow) (there []bool, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	err = db.read(ctx, func(c *conn) error {
		there = make([]bool, len(rows))
		s, err := c.stmt(stmtListNamesBetween)
		if err != nil {
			return err
		}
		defer s.Reset()
		s.BindInt64(1, rows[0].ID)
		s.BindInt64(2, rows[len(rows)-1].ID)
		return markThere(ctx, s, rows, there)
	})
	return there, err
}

// markThere goes through numbers and paths beside the rows.
func markThere(ctx context.Context, s *sqlite.Stmt, rows []*PathRow, there []bool) error {
	var buf []byte
	at := 0
	for i := 0; ; i++ {
		more, err := s.Step()
		if err == nil {
			err = checkEvery(ctx, i)
		}
		if err != nil || !more {
			return err
		}
		id := s.ColumnInt64(0)
		for at < len(rows) && rows[at].ID < id {
			at++
		}
		if at == len(rows) || rows[at].ID != id {
			continue
		}
		n := s.ColumnLen(1)
		if n > len(buf) {
			buf = make([]byte, 2*n)
		}
		s.ColumnBytes(1, buf)
		there[at] = string(buf[:n]) == rows[at].Path
	}
}

// InvalidateWithReferrers removes the given rows, as far as the paths still have the same numbers, and all that refer to
// them directly or indirectly. It returns the paths that were removed, the given ones first.
func (tx *Tx) InvalidateWithReferrers(rows []PathRow) ([]string, error) {
	seen := make(map[string]struct{}, len(rows))
	var doomed []string
	add := func(path string) {
		if _, ok := seen[path]; !ok {
			seen[path] = struct{}{}
			doomed = append(doomed, path)
		}
	}
	for i := range rows {
		id, found, err := tx.PathID(rows[i].Path)
		if err != nil {
			return nil, err
		}
		if found && id == rows[i].ID {
			add(rows[i].Path)
		}
	}
	for i := 0; i < len(doomed); i++ {
		referrers, err := tx.Referrers(doomed[i])
		if err != nil {
			return nil, err
		}
		for _, r := range referrers {
			add(r)
		}
	}
	return doomed, tx.removeRows(doomed)
}

// removeRows removes rows that nothing else refers to. Their references go first, so their order does not matter.
func (tx *Tx) removeRows(paths []string) error {
	for _, id := range []statement{stmtDeleteReferences, stmtDeletePath} {
		for _, path := range paths {
			if _, err := tx.change(id, func(s *sqlite.Stmt) { s.BindText(1, path) }); err != nil {
				return err
			}
		}
	}
	return nil
}
