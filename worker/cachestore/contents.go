package cachestore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"nixdaemon/localstore"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/export"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/limited"
	"nixdaemon/worker/substitute"
)

const (
	// narBuffer is how much of an archive is read ahead.
	narBuffer = 64 << 10

	// maxDerivation bounds the archive of a derivation, in bytes.
	maxDerivation = 64 << 20
)

// openNAR opens the archive of a valid path.
func (s *Store) openNAR(ctx context.Context, p storepath.Path) (io.ReadCloser, error) {
	info, err := s.validInfo(ctx, p)
	if err != nil {
		return nil, err
	}
	return s.o.Cache.OpenNAR(ctx, s.asker(), info)
}

// Dump writes the archive of a valid path.
func (s *Store) Dump(ctx context.Context, p storepath.Path, w io.Writer) (err error) {
	body, err := s.openNAR(ctx, p)
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, body.Close()) }()
	_, err = nar.Copy(w, wire.NewReaderSize(body, narBuffer))
	return err
}

// RealPath is what DumpFile calls a path by; nothing is there.
func (s *Store) RealPath(p storepath.Path) string { return s.Dir().Print(p) }

// DumpFile writes the archive of a path that RealPath has named.
func (s *Store) DumpFile(ctx context.Context, realPath string, w io.Writer) error {
	p, err := s.Dir().Parse(realPath)
	if err != nil {
		return err
	}
	return s.Dump(ctx, p, w)
}

// ReadDerivation reads a derivation out of the cache.
func (s *Store) ReadDerivation(ctx context.Context, p storepath.Path) (*derivation.Derivation, error) {
	if err := p.RequireDerivation(); err != nil {
		return nil, err
	}
	info, err := s.validInfo(ctx, p)
	if err != nil {
		return nil, err
	}
	data, err := s.smallNAR(ctx, info)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	file := limited.OneFile(func(contents io.Reader) error {
		_, err := io.Copy(&text, contents)
		return err
	})
	if err := nar.Parse(bytes.NewReader(data), file); err != nil {
		return nil, err
	}
	return derivation.ParseFile(s.Dir(), p, text.String(), s.o.Features)
}

// smallNAR gives an archive as a whole, from this machine if it is kept here.
func (s *Store) smallNAR(ctx context.Context, info *narinfo.NarInfo) ([]byte, error) {
	kept := narCache{s.params.narCache}
	if data := kept.get(info.NarHash, maxDerivation); data != nil {
		return data, nil
	}
	body, err := s.o.Cache.OpenNAR(ctx, s.asker(), info)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(body, maxDerivation+1))
	if err = firstOf(err, body.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxDerivation {
		return nil, fmt.Errorf("derivation '%s' is too large", s.Dir().Print(info.Path))
	}
	if nixhash.Of(nixhash.SHA256, string(data)) == info.NarHash {
		if err := kept.put(info.NarHash, data); err != nil {
			substitute.Warn(s.asker().Log, fmt.Errorf("keep archive of '%s': %w", s.Dir().Print(info.Path), err))
		}
	}
	return data, nil
}

// ExportPath writes one path in the format of "nix-store --export".
func (s *Store) ExportPath(ctx context.Context, p storepath.Path, w io.Writer) error {
	return export.Path(ctx, s, p, w)
}

// ImportPaths adds the paths of a stream in the format of "nix-store --export" and gives them in their order.
func (s *Store) ImportPaths(ctx context.Context, r io.Reader, o localstore.AddOptions) ([]storepath.Path, error) {
	keep := func(context.Context) (export.Kept, error) { return kept{new(spool)}, nil }
	return export.Read(ctx, r, s.Dir(), keep, func(ctx context.Context, info *pathinfo.Info, archive io.Reader) error {
		return s.AddNAR(ctx, info, archive, o)
	})
}

// kept is an archive whose metadata follow it.
type kept struct{ *spool }

// Archive gives it.
func (k kept) Archive() (io.Reader, error) {
	r, _, err := k.open()
	return wire.NewReaderSize(r, narBuffer), err
}

// Close drops it.
func (k kept) Close() error { return k.close() }
