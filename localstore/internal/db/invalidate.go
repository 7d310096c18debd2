package db

import (
	"encoding/json"
	"slices"

	"zombiezen.com/go/sqlite"
)

// invalidatedAtOnce is how many paths one statement deletes. A statement that a foreign key could stop copies each page
// before it changes it: with one statement for each path the same few pages would be copied over and over.
const invalidatedAtOnce = 64

// InvalidateAll removes the rows of paths with their references and outputs, in any order, and tells how many there
// were. If a valid path that is not among them refers to one of them it gives a ReferrersError; all that
// the transaction's function has done must then be undone.
func (tx *Tx) InvalidateAll(paths []string) (int, error) {
	if len(paths) == 1 {
		found, err := tx.Invalidate(paths[0])
		if found {
			return 1, err
		}
		return 0, err
	}
	lists := make([]string, 0, len(paths)/invalidatedAtOnce+1)
	for some := range slices.Chunk(paths, invalidatedAtOnce) {
		text, err := json.Marshal(some)
		if err != nil {
			return 0, err
		}
		lists = append(lists, string(text))
	}
	for _, list := range lists {
		if _, err := tx.change(stmtDeleteReferencesOfAll, func(s *sqlite.Stmt) { s.BindText(1, list) }); err != nil {
			return 0, err
		}
	}
	found := 0
	for _, list := range lists {
		rows, err := tx.change(stmtDeletePaths, func(s *sqlite.Stmt) { s.BindText(1, list) })
		if err != nil && isConstraint(err) {
			return 0, tx.whoIsUsed(paths, err)
		}
		if err != nil {
			return 0, err
		}
		tx.resized = tx.resized || rows > 0
		found += rows
	}
	return found, nil
}

// whoIsUsed finds out which of the paths hindered their deletion.
func (tx *Tx) whoIsUsed(paths []string, cause error) error {
	for _, p := range paths {
		if _, err := tx.Invalidate(p); err != nil {
			return err
		}
	}
	return cause
}
