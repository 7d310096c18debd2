package restricted

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"nixdaemon/localstore"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// addOptions are for additions on behalf of the builder. It repairs nothing,
// since what it would replace may be in use outside of its build, and what it
// adds stays until the build ends.
func (s *Store) addOptions(o localstore.AddOptions) localstore.AddOptions {
	o.Repair, o.DontCheckSigs = false, false
	o.Roots = s.build.Session().Roots
	return o
}

// mayRefer refuses references to what the builder does not see.
func (s *Store) mayRefer(name string, self storepath.Path, refs []storepath.Path) error {
	for _, ref := range refs {
		if ref != self && !s.build.MayUse(ref) {
			return fmt.Errorf("cannot add '%s' in recursive Nix because it refers to '%s', which is unknown", name, s.Dir().Print(ref))
		}
	}
	return nil
}

// AddDump adds contents under the path that follows from them, for the builder
// to see.
func (s *Store) AddDump(ctx context.Context, spec localstore.DumpSpec, data io.Reader, o localstore.AddOptions) (*pathinfo.Info, error) {
	spec.Repair = false
	if err := s.mayRefer(spec.Name, storepath.Path{}, spec.References); err != nil {
		return nil, err
	}
	info, err := s.next.AddDump(ctx, spec, data, s.addOptions(o))
	if err != nil {
		return nil, err
	}
	if err := s.build.Add(ctx, info.Path); err != nil {
		return nil, err
	}
	return censored(info), nil
}

// AddNAR adds a path with its metadata, for the builder to see. The store does
// not look at the contents of what is valid; we do, as said in the package's
// comment.
func (s *Store) AddNAR(ctx context.Context, info *pathinfo.Info, archive io.Reader, o localstore.AddOptions) error {
	name := s.Dir().Print(info.Path)
	if err := s.mayRefer(name, info.Path, info.References); err != nil {
		if broken := nar.Skip(archive); broken != nil {
			return broken
		}
		return err
	}
	sum := sha256.New()
	if err := s.next.AddNAR(ctx, info, io.TeeReader(archive, sum), s.addOptions(o)); err != nil {
		return err
	}
	stored, err := s.next.PathInfo(ctx, info.Path)
	if err != nil {
		return err
	}
	if got := nixhash.FromSum(nixhash.SHA256, sum); got != stored.NarHash {
		// What the store holds is not for the text.
		return fmt.Errorf("hash mismatch importing path '%s';\n  got:       %s", name, got)
	}
	return s.build.Add(ctx, info.Path)
}

// AddNARs adds paths one after the other: each may refer to those before.
func (s *Store) AddNARs(ctx context.Context, next func() (*pathinfo.Info, io.Reader, error), o localstore.AddOptions) error {
	for {
		info, archive, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.AddNAR(ctx, info, archive, o)
		}
		if err != nil {
			return err
		}
	}
}

// ImportPaths is not for builders: upstream's daemons have no such request any
// more.
func (s *Store) ImportPaths(context.Context, io.Reader, localstore.AddOptions) ([]storepath.Path, error) {
	return nil, unsupported("importPaths")
}
