package localstore

import (
	"fmt"
	"strings"
	"unique"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// toRow is the form of an Info in the database.
func (s *Store) toRow(info *pathinfo.Info) db.PathRow {
	dir := s.opts.StoreDir
	return db.PathRow{
		Path:             dir.Print(info.Path),
		Hash:             info.NarHash.Format(nixhash.Base16, true),
		RegistrationTime: info.RegistrationTime,
		Deriver:          dir.Print(info.Deriver),
		NarSize:          info.NarSize,
		Ultimate:         info.Ultimate,
		Sigs:             joinSignatures(info.Sigs),
		CA:               info.CA.String(),
		References:       dir.PrintAll(info.References),
	}
}

// fromRow reads a row. The Info refers to the row's texts: those of references are kept for as long as it is, so they must
// be shared between rows, as the database's are, or see intern.
func (s *Store) fromRow(p storepath.Path, row *db.PathRow) (*pathinfo.Info, error) {
	info := &pathinfo.Info{
		Path:             p,
		RegistrationTime: row.RegistrationTime,
		NarSize:          row.NarSize,
		Ultimate:         row.Ultimate,
	}
	var err error
	if info.NarHash, err = nixhash.Parse(row.Hash); err != nil {
		return nil, fmt.Errorf("invalid-path entry for '%s': %w", row.Path, err)
	}
	if info.Sigs, err = splitSignatures(row.Sigs); err != nil {
		return nil, fmt.Errorf("invalid-path entry for '%s': %w", row.Path, err)
	}
	if info.Deriver, err = s.opts.StoreDir.ParseOptional(row.Deriver); err != nil {
		return nil, err
	}
	if info.CA, err = storepath.ParseContentAddress(row.CA); err != nil {
		return nil, err
	}
	info.References, err = s.parsePaths(row.References)
	return info, err
}

func (s *Store) parsePaths(texts []string) ([]storepath.Path, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	paths := make([]storepath.Path, len(texts))
	for i, text := range texts {
		var err error
		if paths[i], err = s.opts.StoreDir.Parse(text); err != nil {
			return nil, err
		}
	}
	return storepath.SortUnique(paths), nil
}

// intern makes equal texts one, so that a path that many refer to is held once.
func intern(texts []string) []string {
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = unique.Make(text).Value()
	}
	return out
}

// splitSignatures reads a column of signatures into a set.
func splitSignatures(text string) ([]pathinfo.Signature, error) {
	if text == "" {
		return nil, nil
	}
	return pathinfo.ParseSignatures(strings.Fields(text))
}

func joinSignatures(sigs []pathinfo.Signature) string {
	return strings.Join(pathinfo.SignatureStrings(sigs), " ")
}
