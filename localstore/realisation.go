package localstore

import (
	"context"
	"errors"
	"fmt"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
)

// RealisationConflictError says that another path is known for an output already. All are texts as clients know them.
type RealisationConflictError struct{ ID, Local, Remote string }

func (e *RealisationConflictError) Error() string {
	return fmt.Sprintf("Trying to register a realisation of '%s', but we already have another one locally.\n"+
		"Local:  %s\nRemote: %s", e.ID, e.Local, e.Remote)
}

// realisationKey is one of the two keys that an output can have; see [pathinfo.DrvOutput].
type realisationKey struct {
	kind db.KeyKind
	drv  string
	id   string // for messages
}

func (s *Store) realisationKeys(id pathinfo.DrvOutput) []realisationKey {
	var keys []realisationKey
	if !id.DrvPath.IsZero() {
		keys = append(keys, realisationKey{db.ByPath, id.DrvPath.Base(), id.PathID(s.opts.StoreDir)})
	}
	if !id.DrvHash.IsZero() {
		keys = append(keys, realisationKey{db.ByHash, id.DrvHash.Format(nixhash.Base16, true), id.HashID()})
	}
	return keys
}

// QueryRealisation gives what is known of an output, by whichever of its keys, or nil. Without Options.CADerivations
// nothing is known.
func (s *Store) QueryRealisation(ctx context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	if !s.opts.CADerivations {
		return nil, nil
	}
	h := s.acquire()
	defer h.release()
	for _, key := range s.realisationKeys(id) {
		row, found, err := h.db.QueryRealisation(ctx, key.kind, key.drv, id.Output)
		if err != nil {
			return nil, err
		}
		if found {
			return s.realisation(id, &row)
		}
	}
	if lower := s.lower(); lower != nil {
		return lower.QueryRealisation(ctx, id)
	}
	return nil, nil
}

func (s *Store) realisation(id pathinfo.DrvOutput, row *db.RealisationRow) (*pathinfo.Realisation, error) {
	path, err := s.opts.StoreDir.Parse(row.Path)
	if err != nil {
		return nil, err
	}
	sigs, err := splitSignatures(row.Sigs)
	return &pathinfo.Realisation{ID: id, OutPath: path, Sigs: sigs}, err
}

// RegisterRealisation records which path an output became, under every key that is given. A realisation that is known
// with the same path gets the new signatures, too; with another path it is a [RealisationConflictError], unless that
// path is not valid any more: what a derivation became must not keep it from being built anew. Under the
// derivation's hash the path must be valid, or it is a [NotValidError]. Signatures are the caller's to check.
func (s *Store) RegisterRealisation(ctx context.Context, r *pathinfo.Realisation) error {
	if len(s.realisationKeys(r.ID)) == 0 {
		return errors.New("register realisation: it has no key")
	}
	h := s.acquire()
	defer h.release()
	if err := s.adoptRealisation(ctx, h, r); err != nil {
		return err
	}
	return s.registerRealisation(ctx, h, r)
}

func (s *Store) registerRealisation(ctx context.Context, h *handle, r *pathinfo.Realisation) error {
	keys := s.realisationKeys(r.ID)
	err := h.db.Write(ctx, func(tx *db.Tx) error {
		for _, key := range keys {
			if err := s.mergeRealisation(tx, key, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = s.syncRows(h)
	}
	return public(err)
}

func (s *Store) mergeRealisation(tx *db.Tx, key realisationKey, r *pathinfo.Realisation) error {
	path := s.opts.StoreDir.Print(r.OutPath)
	old, found, err := tx.QueryRealisation(key.kind, key.drv, r.ID.Output)
	if err != nil {
		return err
	}
	row := db.RealisationRow{Drv: key.drv, Output: r.ID.Output, Path: path, Sigs: joinSignatures(r.Sigs)}
	if !found {
		return tx.AddRealisation(key.kind, row)
	}
	if old.Path != path {
		_, valid, err := tx.PathID(old.Path)
		if err != nil {
			return err
		}
		if valid {
			return &RealisationConflictError{key.id, old.Path, path}
		}
		// Only one of the generation by path outlives its output.
		return tx.ReplaceRealisation(row)
	}
	sigs, err := splitSignatures(old.Sigs)
	if err != nil {
		return err
	}
	all := joinSignatures(pathinfo.MergeSignatures(sigs, r.Sigs))
	_, err = tx.SetRealisationSignatures(key.kind, key.drv, r.ID.Output, all)
	return err
}
