package forward

import (
	"bufio"
	"context"
	"io"
	"os"

	"nixdaemon/localstore"
	"nixdaemon/protocol/export"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// Newer daemons know nothing of exports, so they are taken apart and put
// together here.

// ExportPath writes one path in the format of "nix-store --export".
func (b *Backend) ExportPath(ctx context.Context, p storepath.Path, w io.Writer) error {
	return export.Path(ctx, b, p, w)
}

// ImportPaths adds the paths of a stream in the format of "nix-store --export"
// and gives them in their order.
func (b *Backend) ImportPaths(ctx context.Context, r io.Reader, o localstore.AddOptions) ([]storepath.Path, error) {
	return export.Read(ctx, r, b.Dir(), keepArchive, func(ctx context.Context, info *pathinfo.Info, archive io.Reader) error {
		return b.AddNAR(ctx, info, archive, o)
	})
}

// keptArchive is a file that has no name any more.
type keptArchive struct{ *os.File }

func keepArchive(context.Context) (export.Kept, error) {
	f, err := keep(func(io.Writer) error { return nil })
	if err != nil {
		return nil, err
	}
	return keptArchive{f}, nil
}

// Archive implements [export.Kept].
func (k keptArchive) Archive() (io.Reader, error) {
	_, err := k.Seek(0, io.SeekStart)
	return bufio.NewReader(k.File), err
}
