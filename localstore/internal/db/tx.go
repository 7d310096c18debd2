package db

import (
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"
)

// change runs a statement and notes whether it changed a row.
func (tx *Tx) change(id statement, bind func(*sqlite.Stmt)) (rows int, err error) {
	if err := tx.exec(id, bind); err != nil {
		return 0, err
	}
	rows = tx.sql.Changes()
	if rows > 0 {
		tx.changed = true
	}
	return rows, nil
}

// Register makes the rows' paths valid, or updates those that are; an update touches neither deriver nor
// registration time, and adds references but removes none (LocalStore::registerValidPaths).
// References may name other rows of the same call; one that is not valid gives a NotValidError.
// Cycles are the caller's to refuse.
// outputs holds the known output paths by name of those rows that are derivations; they are recorded only
// for derivations that were not valid before. It may be nil.
func (tx *Tx) Register(rows []PathRow, outputs map[string]map[string]string) error {
	ids := make(map[string]int64, len(rows))
	for i := range rows {
		row := &rows[i]
		id, err := tx.registerRow(row, outputs[row.Path])
		if err != nil {
			return fmt.Errorf("register %s: %w", row.Path, err)
		}
		ids[row.Path] = id
	}
	for i := range rows {
		if err := tx.insertReferences(ids[rows[i].Path], rows[i].References, ids); err != nil {
			return err
		}
	}
	return nil
}

// registerRow looks for the row only when there is one in the way, which is rare.
func (tx *Tx) registerRow(row *PathRow, outputs map[string]string) (int64, error) {
	id, err := tx.insertRow(row)
	row.Inserted = err == nil
	if err != nil && isConstraint(err) {
		old, found, e := tx.PathID(row.Path)
		if e != nil {
			return 0, e
		}
		if found {
			return old, tx.updateRow(old, row)
		}
	}
	if err != nil {
		return 0, err
	}
	for name, path := range outputs {
		if err := tx.insertOutput(id, name, path); err != nil {
			return 0, err
		}
	}
	return id, nil
}

func (tx *Tx) insertRow(row *PathRow) (int64, error) {
	registered := row.RegistrationTime
	if registered == 0 {
		registered = time.Now().Unix()
	}
	_, err := tx.change(stmtInsertPath, func(s *sqlite.Stmt) {
		s.BindText(1, row.Path)
		s.BindText(2, row.Hash)
		s.BindInt64(3, registered)
		bindNullText(s, 4, row.Deriver)
		bindNullInt(s, 5, int64(row.NarSize))
		bindNullBool(s, 6, row.Ultimate)
		bindNullText(s, 7, row.Sigs)
		bindNullText(s, 8, row.CA)
	})
	tx.resized = tx.resized || err == nil
	return tx.sql.LastInsertRowID(), err
}

func (tx *Tx) updateRow(id int64, row *PathRow) error {
	_, err := tx.change(stmtUpdatePath, func(s *sqlite.Stmt) {
		s.BindInt64(1, id)
		bindNullInt(s, 2, int64(row.NarSize))
		s.BindText(3, row.Hash)
		bindNullBool(s, 4, row.Ultimate)
		bindNullText(s, 5, row.Sigs)
		bindNullText(s, 6, row.CA)
	})
	return err
}

func bindNullBool(s *sqlite.Stmt, param int, value bool) {
	if value {
		s.BindInt64(param, 1)
	} else {
		s.BindNull(param)
	}
}

// insertReferences looks references up in ids first and leaves what it had to ask for there.
func (tx *Tx) insertReferences(referrer int64, references []string, ids map[string]int64) error {
	for _, path := range references {
		id, known := ids[path]
		if !known {
			var found bool
			var err error
			if id, found, err = tx.PathID(path); err != nil {
				return err
			}
			if !found {
				return &NotValidError{path}
			}
			ids[path] = id
		}
		_, err := tx.change(stmtInsertReference, func(s *sqlite.Stmt) {
			s.BindInt64(1, referrer)
			s.BindInt64(2, id)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// SetSignatures replaces the signatures of path (separated by spaces), or gives a NotValidError.
func (tx *Tx) SetSignatures(path, sigs string) error {
	return tx.updateValid(path, stmtUpdateSignatures, func(s *sqlite.Stmt) {
		s.BindText(1, path)
		bindNullText(s, 2, sigs)
	})
}

// SetHash replaces the NAR hash and size of path, or gives a NotValidError.
// It serves verification, which fills in what very old databases lack, and repair.
func (tx *Tx) SetHash(path, hash string, narSize uint64) error {
	return tx.updateValid(path, stmtUpdateHash, func(s *sqlite.Stmt) {
		s.BindText(1, path)
		s.BindText(2, hash)
		bindNullInt(s, 3, int64(narSize))
	})
}

func (tx *Tx) updateValid(path string, id statement, bind func(*sqlite.Stmt)) error {
	rows, err := tx.change(id, bind)
	if err == nil && rows == 0 {
		err = &NotValidError{path}
	}
	return err
}

// Invalidate removes the row of path with its references and outputs. It reports whether there was one.
// While other valid paths refer to it, it gives a ReferrersError.
func (tx *Tx) Invalidate(path string) (bool, error) {
	// The references would go by themselves, but then SQLite copies every page that it changes: that deletion might fail.
	if _, err := tx.change(stmtDeleteReferences, func(s *sqlite.Stmt) { s.BindText(1, path) }); err != nil {
		return false, err
	}
	rows, err := tx.change(stmtDeletePath, func(s *sqlite.Stmt) { s.BindText(1, path) })
	tx.resized = tx.resized || rows > 0
	if err != nil && isConstraint(err) {
		return false, tx.inUse(path, err)
	}
	return rows > 0, err
}

func (tx *Tx) inUse(path string, cause error) error {
	referrers, err := tx.Referrers(path)
	if err != nil {
		return err
	}
	e := &ReferrersError{Path: path}
	for _, r := range referrers {
		if r != path {
			e.Referrers = append(e.Referrers, r)
		}
	}
	if len(e.Referrers) == 0 {
		return fmt.Errorf("invalidate %s: %w", path, cause)
	}
	return e
}

// AddDerivationOutputs records output paths by name of the valid derivation drv, or gives a NotValidError.
func (tx *Tx) AddDerivationOutputs(drv string, outputs map[string]string) error {
	id, found, err := tx.PathID(drv)
	if err != nil {
		return err
	}
	if !found {
		return &NotValidError{drv}
	}
	for name, path := range outputs {
		if err := tx.insertOutput(id, name, path); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) insertOutput(drv int64, name, path string) error {
	_, err := tx.change(stmtInsertOutput, func(s *sqlite.Stmt) {
		s.BindInt64(1, drv)
		s.BindText(2, name)
		s.BindText(3, path)
	})
	return err
}
