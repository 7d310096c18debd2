package db

import (
	"context"
	"errors"

	"zombiezen.com/go/sqlite"
)

// KeyKind is a generation of realisations, named by what their derivation is known by.
type KeyKind int

const (
	// ByHash is the generation up to 2.34: the key is the derivation's hash modulo, as "sha256:" and base16.
	// The output path must be valid, and the realisation goes when it goes.
	ByHash KeyKind = iota
	// ByPath is the generation since 2.35: the key is the base name of the derivation's path.
	// Nothing ties the realisation to the output's validity.
	ByPath
)

// ErrNoRealisations is returned when a realisation is recorded in a database without tables for them.
var ErrNoRealisations = errors.New("database has no tables for realisations")

// RealisationRow is one known output of a content-addressing derivation.
type RealisationRow struct {
	// Drv is the derivation's key, see KeyKind.
	Drv string
	// Output is the output's name.
	Output string
	// Path is the full store path of the output.
	Path string
	// Sigs is the realisation's signatures, separated by spaces.
	Sigs string
}

type realisationStatements struct{ query, insert, update statement }

func (k KeyKind) statements() realisationStatements {
	if k == ByPath {
		return realisationStatements{stmtQueryRealisationByPath, stmtInsertRealisationByPath, stmtUpdateRealisationByPath}
	}
	return realisationStatements{stmtQueryRealisationByHash, stmtInsertRealisationByHash, stmtUpdateRealisationByHash}
}

func (db *DB) hasRealisations(kind KeyKind) bool {
	if kind == ByPath {
		return db.byPath
	}
	return db.byHash
}

// QueryRealisation returns the realisation of an output, and whether there is one.
// A database without tables for them has none.
func (db *DB) QueryRealisation(ctx context.Context, kind KeyKind, drv, output string) (row RealisationRow, found bool, err error) {
	if !db.hasRealisations(kind) {
		return RealisationRow{}, false, nil
	}
	err = db.read(ctx, func(c *conn) (err error) { row, found, err = c.queryRealisation(kind, drv, output); return err })
	return row, found, err
}

// QueryRealisation is DB.QueryRealisation within the transaction.
func (tx *Tx) QueryRealisation(kind KeyKind, drv, output string) (row RealisationRow, found bool, err error) {
	if !tx.db.hasRealisations(kind) {
		return RealisationRow{}, false, nil
	}
	return tx.queryRealisation(kind, drv, output)
}

func (c *conn) queryRealisation(kind KeyKind, drv, output string) (row RealisationRow, found bool, err error) {
	s, err := c.stmt(kind.statements().query)
	if err != nil {
		return RealisationRow{}, false, err
	}
	defer s.Reset()
	s.BindText(1, drv)
	s.BindText(2, output)
	if found, err = s.Step(); !found || err != nil {
		return RealisationRow{}, false, err
	}
	return RealisationRow{Drv: drv, Output: output, Path: s.ColumnText(0), Sigs: s.ColumnText(1)}, true, nil
}

// AddRealisation records a realisation that is not known yet. With ByHash the output must be valid,
// otherwise it gives a NotValidError.
func (tx *Tx) AddRealisation(kind KeyKind, row RealisationRow) error {
	if !tx.db.hasRealisations(kind) {
		return ErrNoRealisations
	}
	var output int64
	if kind == ByHash {
		id, found, err := tx.PathID(row.Path)
		if err != nil {
			return err
		}
		if !found {
			return &NotValidError{row.Path}
		}
		output = id
	}
	_, err := tx.change(kind.statements().insert, func(s *sqlite.Stmt) {
		s.BindText(1, row.Drv)
		s.BindText(2, row.Output)
		if kind == ByHash {
			s.BindInt64(3, output)
		} else {
			s.BindText(3, row.Path)
		}
		// Upstream leaves an empty text here, not NULL.
		s.BindText(4, row.Sigs)
	})
	return err
}

// SetRealisationSignatures replaces the signatures of a realisation. It reports whether there is one.
func (tx *Tx) SetRealisationSignatures(kind KeyKind, drv, output, sigs string) (bool, error) {
	if !tx.db.hasRealisations(kind) {
		return false, nil
	}
	rows, err := tx.change(kind.statements().update, func(s *sqlite.Stmt) {
		s.BindText(1, drv)
		s.BindText(2, output)
		s.BindText(3, sigs)
	})
	return rows > 0, err
}

// ReplaceRealisation gives a realisation of the generation [ByPath] another output path and its signatures.
func (tx *Tx) ReplaceRealisation(row RealisationRow) error {
	_, err := tx.change(stmtReplaceRealisationByPath, func(s *sqlite.Stmt) {
		s.BindText(1, row.Drv)
		s.BindText(2, row.Output)
		s.BindText(3, row.Path)
		s.BindText(4, row.Sigs)
	})
	return err
}
