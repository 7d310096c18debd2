// Package export reads and writes the format of "nix-store --export": before
// each path a 1, its archive, a magic number and its metadata; at the end a 0
// (libstore/export-import.cc). An archive comes before the name of its path, so
// whoever reads must keep it somewhere meanwhile: [Read] leaves that to its
// caller.
package export

import (
	"context"
	"errors"
	"fmt"
	"io"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// magic stands between a path's archive and its metadata: "NIXE".
const magic = 0x4558494e

// WritePath writes one path, without the 1 before it: what dump writes of its
// archive, and its metadata. A path whose contents have changed is an error,
// after the fact, since its hash is known only then.
func WritePath(w io.Writer, dir storepath.Dir, info *pathinfo.Info, dump func(io.Writer) error) error {
	sum := nixhash.SHA256.New()
	if err := dump(io.MultiWriter(w, sum)); err != nil {
		return err
	}
	if got := nixhash.FromSum(nixhash.SHA256, sum); got != info.NarHash {
		return fmt.Errorf("hash of path '%s' has changed from '%s' to '%s'!", dir.Print(info.Path), info.NarHash, got)
	}
	out := wire.NewWriter(w)
	out.Uint64(magic)
	out.String(dir.Print(info.Path))
	out.Strings(dir.PrintAll(info.References))
	out.String(dir.Print(info.Deriver))
	out.Uint64(0)
	return out.Flush()
}

// Source is a store, as far as exporting from it goes.
type Source interface {
	Dir() storepath.Dir
	PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error)
	Dump(ctx context.Context, p storepath.Path, w io.Writer) error
}

// Path writes one path of a store as [WritePath] does.
func Path(ctx context.Context, from Source, p storepath.Path, w io.Writer) error {
	info, err := from.PathInfo(ctx, p)
	if err != nil {
		return err
	}
	return WritePath(w, from.Dir(), info, func(w io.Writer) error { return from.Dump(ctx, p, w) })
}

// Kept is an archive that waits for the name of its path.
type Kept interface {
	io.Writer
	// Archive gives what was written, from the beginning.
	Archive() (io.Reader, error)
	// Close drops it.
	Close() error
}

// Read reads a stream to its end. Each archive goes to what keep makes, and
// then, with the metadata, to add. The result is the paths in their order. Of a
// *wire.Reader no more is read than the stream.
func Read(ctx context.Context, r io.Reader, dir storepath.Dir, keep func(context.Context) (Kept, error),
	add func(context.Context, *pathinfo.Info, io.Reader) error) ([]storepath.Path, error) {
	in, ok := r.(*wire.Reader)
	if !ok {
		in = wire.NewReaderSize(r, 64<<10)
	}
	var paths []storepath.Path
	for {
		more, err := in.Uint64()
		if err != nil || more == 0 {
			return paths, err
		}
		if more != 1 {
			return paths, errors.New("input doesn't look like something created by 'nix-store --export'")
		}
		p, err := readPath(ctx, in, dir, keep, add)
		if err != nil {
			return paths, err
		}
		paths = append(paths, p)
	}
}

func readPath(ctx context.Context, in *wire.Reader, dir storepath.Dir, keep func(context.Context) (Kept, error),
	add func(context.Context, *pathinfo.Info, io.Reader) error) (_ storepath.Path, err error) {
	kept, err := keep(ctx)
	if err != nil {
		return storepath.Path{}, err
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	sum := nixhash.SHA256.New()
	size, err := nar.Copy(io.MultiWriter(kept, sum), in)
	if err != nil {
		return storepath.Path{}, err
	}
	info, err := readInfo(in, dir)
	if err != nil {
		return storepath.Path{}, err
	}
	info.NarHash, info.NarSize = nixhash.FromSum(nixhash.SHA256, sum), uint64(size)
	archive, err := kept.Archive()
	if err != nil {
		return storepath.Path{}, err
	}
	return info.Path, add(ctx, info, archive)
}

// readInfo reads what follows an archive: the magic number, path, references,
// deriver or "", and 0, or 1 and a signature of an old kind that vouches for
// nothing.
func readInfo(in *wire.Reader, dir storepath.Dir) (*pathinfo.Info, error) {
	in.SetBudget(wire.MaxRequest)
	mark, err := in.Uint64()
	if err != nil {
		return nil, err
	}
	if mark != magic {
		return nil, errors.New("Nix archive cannot be imported; wrong format")
	}
	var info pathinfo.Info
	if info.Path, err = storePath(in, dir.Parse); err != nil {
		return nil, err
	}
	if info.References, err = references(in, dir); err != nil {
		return nil, err
	}
	if info.Deriver, err = storePath(in, dir.ParseOptional); err != nil {
		return nil, err
	}
	signed, err := in.Uint64()
	if err == nil && signed == 1 {
		_, err = in.String(wire.MaxShortString)
	}
	return &info, err
}

func storePath(in *wire.Reader, parse func(string) (storepath.Path, error)) (storepath.Path, error) {
	text, err := in.String(wire.MaxPath)
	if err != nil {
		return storepath.Path{}, err
	}
	return parse(text)
}

func references(in *wire.Reader, dir storepath.Dir) ([]storepath.Path, error) {
	n, err := in.Count(wire.MaxCount)
	if err != nil {
		return nil, err
	}
	refs := make([]storepath.Path, 0, wire.Capacity(n))
	for range n {
		p, err := storePath(in, dir.Parse)
		if err != nil {
			return nil, err
		}
		refs = append(refs, p)
	}
	return storepath.SortUnique(refs), nil
}
