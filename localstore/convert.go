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

// fromRow reads a row. Texts of references are shared between all Infos: a path that many refer to is held once.
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
	prefix := len(s.opts.StoreDir) + 1
	paths := make([]storepath.Path, len(texts))
	for i, text := range texts {
		p, err := s.parsePath(text, prefix)
		if err != nil {
			return nil, err
		}
		paths[i] = p
	}
	return storepath.SortUnique(paths), nil
}

func (s *Store) parsePath(text string, prefix int) (storepath.Path, error) {
	if len(text) > prefix && text[prefix-1] == '/' && text[:prefix-1] == string(s.opts.StoreDir) {
		return storepath.ParseBase(unique.Make(text[prefix:]).Value())
	}
	return s.opts.StoreDir.Parse(text)
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
