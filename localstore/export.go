package localstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// exportMagic stands between a path's archive and its metadata: "NIXE" (libstore/export-import.cc).
const exportMagic = 0x4558494e

// ExportPath writes one path in the format of "nix-store --export": its archive, the magic number, path, references,
// deriver or "", and 0. Around it such a stream has 1 before each path and 0 at its end. A path whose contents have
// changed is refused after the fact, since the hash is known only then.
func (s *Store) ExportPath(ctx context.Context, p storepath.Path, w io.Writer) error {
	info, err := s.PathInfo(ctx, p)
	if err != nil {
		return err
	}
	sum := nixhash.SHA256.New()
	if err := s.Dump(ctx, p, io.MultiWriter(w, sum)); err != nil {
		return err
	}
	if got := nixhash.FromSum(nixhash.SHA256, sum); got != info.NarHash {
		return fmt.Errorf("hash of path '%s' has changed from '%s' to '%s'!", s.Dir().Print(p), info.NarHash, got)
	}
	out := wire.NewWriter(w)
	out.Uint64(exportMagic)
	out.String(s.Dir().Print(p))
	out.Strings(s.Dir().PrintAll(info.References))
	out.String(s.Dir().Print(info.Deriver))
	out.Uint64(0)
	return out.Flush()
}

// ImportPaths adds the paths of a stream in the format of "nix-store --export" and gives them in their order. The
// archives come before the paths' names, so each is kept in a file until it is known where it belongs.
func (s *Store) ImportPaths(ctx context.Context, r io.Reader, o AddOptions) ([]storepath.Path, error) {
	in := wire.NewReaderSize(ctxReader(ctx, r), 64<<10)
	var paths []storepath.Path
	for {
		more, err := in.Uint64()
		if err != nil || more == 0 {
			return paths, err
		}
		if more != 1 {
			return paths, errors.New("input doesn't look like something created by 'nix-store --export'")
		}
		p, err := s.importPath(ctx, in, o)
		if err != nil {
			return paths, err
		}
		paths = append(paths, p)
	}
}

func (s *Store) importPath(ctx context.Context, in *wire.Reader, o AddOptions) (_ storepath.Path, err error) {
	st, err := s.StagingDir(ctx)
	if err != nil {
		return storepath.Path{}, err
	}
	defer func() { err = joinErrors(err, st.Close()) }()
	kept, err := os.OpenFile(st.Path()+"/archive", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return storepath.Path{}, err
	}
	defer kept.Close()
	sum := nixhash.SHA256.New()
	size, err := nar.Copy(io.MultiWriter(kept, sum), in)
	if err != nil {
		return storepath.Path{}, err
	}
	info, err := s.exportedInfo(in)
	if err != nil {
		return storepath.Path{}, err
	}
	info.NarHash, info.NarSize = nixhash.FromSum(nixhash.SHA256, sum), uint64(size)
	if _, err := kept.Seek(0, io.SeekStart); err != nil {
		return storepath.Path{}, err
	}
	return info.Path, s.AddNAR(ctx, info, bufio.NewReaderSize(kept, 64<<10), o)
}

// exportedInfo reads what follows an archive. Signatures of old releases are skipped: they were made for another
// scheme and vouch for nothing.
func (s *Store) exportedInfo(in *wire.Reader) (*pathinfo.Info, error) {
	in.SetBudget(wire.MaxRequest)
	magic, err := in.Uint64()
	if err != nil {
		return nil, err
	}
	if magic != exportMagic {
		return nil, errors.New("Nix archive cannot be imported; wrong format")
	}
	name, err := in.String(wire.MaxPath)
	if err != nil {
		return nil, err
	}
	refs, err := in.Strings(wire.MaxCount, wire.MaxPath)
	if err != nil {
		return nil, err
	}
	deriver, err := in.String(wire.MaxPath)
	if err != nil {
		return nil, err
	}
	signed, err := in.Uint64()
	if err == nil && signed == 1 {
		_, err = in.String(wire.MaxShortString)
	}
	if err != nil {
		return nil, err
	}
	return s.parseExported(name, refs, deriver)
}

func (s *Store) parseExported(name string, refs []string, deriver string) (*pathinfo.Info, error) {
	info := &pathinfo.Info{}
	var err error
	if info.Path, err = s.Dir().Parse(name); err != nil {
		return nil, err
	}
	if info.Deriver, err = s.Dir().ParseOptional(deriver); err != nil {
		return nil, err
	}
	for _, ref := range refs {
		p, err := s.Dir().Parse(ref)
		if err != nil {
			return nil, err
		}
		info.References = append(info.References, p)
	}
	info.References = storepath.SortUnique(info.References)
	return info, nil
}
