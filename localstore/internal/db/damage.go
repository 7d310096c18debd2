package db

import (
	"errors"
	"fmt"
	"path/filepath"

	"zombiezen.com/go/sqlite"
)

// DamagedError says that the database is not what its schema file says it is, or that SQLite cannot make sense of it.
// Nothing is changed by whoever finds that out.
type DamagedError struct {
	File string // of the database
	Err  error
}

func (e *DamagedError) Error() string {
	dir := filepath.Dir(e.File)
	return fmt.Sprintf("database \"%s\" is damaged: %v\n"+
		"Do not collect garbage. Stop everything that uses the store, keep a copy of \"%s\",\n"+
		"and put back a backup of that directory or repair the database with the command .recover of sqlite3.", e.File, e.Err, dir)
}

// Unwrap gives SQLite's error.
func (e *DamagedError) Unwrap() error { return e.Err }

// explain tells of damage where SQLite's codes do.
func (db *DB) explain(err error) error {
	if err == nil {
		return nil
	}
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultCorrupt, sqlite.ResultNotADB:
		if known := (*DamagedError)(nil); !errors.As(err, &known) {
			return &DamagedError{db.file, err}
		}
	}
	return err
}

// checkTables looks, before anything is written, whether the tables are there that the schema of that version has.
// A collector that took an emptied database for a new store would delete everything.
func (db *DB) checkTables(c *conn, version int) error {
	columns := "id, path, hash, registrationTime, deriver, narSize"
	if version >= schemaVersion {
		columns += ", ultimate, sigs, ca"
	}
	for _, query := range []string{
		"select " + columns + " from ValidPaths",
		"select referrer, reference from Refs",
		"select drv, id, path from DerivationOutputs",
		"select name, seq from sqlite_sequence",
	} {
		s, _, err := c.sql.PrepareTransient(query)
		if err == nil {
			err = s.Finalize()
		}
		if err == nil || isBusy(err) {
			continue
		}
		return &DamagedError{db.file, err}
	}
	return nil
}
