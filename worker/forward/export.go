package forward

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"nixdaemon/localstore"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// Newer daemons know nothing of exports, so they are taken apart and put
// together here (libstore/export-import.cc).

// exportMagic stands between a path's archive and its metadata: "NIXE".
const exportMagic = 0x4558494e

// ExportPath writes one path in the format of "nix-store --export".
func (b *Backend) ExportPath(ctx context.Context, p storepath.Path, w io.Writer) error {
	info, err := b.PathInfo(ctx, p)
	if err != nil {
		return err
	}
	sum := nixhash.SHA256.New()
	if err := b.Dump(ctx, p, io.MultiWriter(w, sum)); err != nil {
		return err
	}
	if got := nixhash.FromSum(nixhash.SHA256, sum); got != info.NarHash {
		return fmt.Errorf("hash of path '%s' has changed from '%s' to '%s'!", b.Dir().Print(p), info.NarHash, got)
	}
	out := wire.NewWriter(w)
	out.Uint64(exportMagic)
	out.String(b.Dir().Print(p))
	out.Strings(b.Dir().PrintAll(info.References))
	out.String(b.Dir().Print(info.Deriver))
	out.Uint64(0)
	return out.Flush()
}

// ImportPaths adds the paths of a stream in the format of "nix-store --export"
// and gives them in their order. An archive comes before its metadata, so it
// waits in a file.
func (b *Backend) ImportPaths(ctx context.Context, r io.Reader, o localstore.AddOptions) ([]storepath.Path, error) {
	in := wire.NewReader(r)
	var paths []storepath.Path
	for {
		more, err := in.Uint64()
		if err != nil || more == 0 {
			return paths, err
		}
		if more != 1 {
			return paths, errors.New("input doesn't look like something created by 'nix-store --export'")
		}
		p, err := b.importPath(ctx, in, o)
		if err != nil {
			return paths, err
		}
		paths = append(paths, p)
	}
}

func (b *Backend) importPath(ctx context.Context, in *wire.Reader, o localstore.AddOptions) (storepath.Path, error) {
	sum := nixhash.SHA256.New()
	var size int64
	kept, err := keep(func(w io.Writer) (err error) {
		size, err = nar.Copy(io.MultiWriter(w, sum), in)
		return err
	})
	if err != nil {
		return storepath.Path{}, err
	}
	defer kept.Close()
	info, err := b.exportedInfo(in)
	if err != nil {
		return storepath.Path{}, err
	}
	info.NarHash, info.NarSize = nixhash.FromSum(nixhash.SHA256, sum), uint64(size)
	return info.Path, b.AddNAR(ctx, info, bufio.NewReader(kept), o)
}

// exportedInfo reads what follows an archive: the magic number, path,
// references, deriver or "", and 0, or 1 and a signature of an old kind that
// vouches for nothing.
func (b *Backend) exportedInfo(in *wire.Reader) (*pathinfo.Info, error) {
	in.SetBudget(wire.MaxRequest)
	magic, err := in.Uint64()
	if err != nil {
		return nil, err
	}
	if magic != exportMagic {
		return nil, errors.New("Nix archive cannot be imported; wrong format")
	}
	var info pathinfo.Info
	if info.Path, err = b.path(in, b.Dir().Parse); err != nil {
		return nil, err
	}
	if info.References, err = b.references(in); err != nil {
		return nil, err
	}
	if info.Deriver, err = b.path(in, b.Dir().ParseOptional); err != nil {
		return nil, err
	}
	signed, err := in.Uint64()
	if err == nil && signed == 1 {
		_, err = in.String(wire.MaxShortString)
	}
	return &info, err
}

func (b *Backend) path(in *wire.Reader, parse func(string) (storepath.Path, error)) (storepath.Path, error) {
	text, err := in.String(wire.MaxPath)
	if err != nil {
		return storepath.Path{}, err
	}
	return parse(text)
}

func (b *Backend) references(in *wire.Reader) ([]storepath.Path, error) {
	n, err := in.Count(wire.MaxCount)
	if err != nil {
		return nil, err
	}
	refs := make([]storepath.Path, 0, wire.Capacity(n))
	for range n {
		p, err := b.path(in, b.Dir().Parse)
		if err != nil {
			return nil, err
		}
		refs = append(refs, p)
	}
	return storepath.SortUnique(refs), nil
}
