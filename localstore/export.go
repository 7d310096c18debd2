package localstore

import (
	"bufio"
	"context"
	"io"
	"os"

	"nixdaemon/protocol/export"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// ExportPath writes one path in the format of "nix-store --export"; see package export.
func (s *Store) ExportPath(ctx context.Context, p storepath.Path, w io.Writer) error {
	return export.Path(ctx, s, p, w)
}

// ImportPaths adds the paths of a stream in the format of "nix-store --export" and gives them in their order.
func (s *Store) ImportPaths(ctx context.Context, r io.Reader, o AddOptions) ([]storepath.Path, error) {
	return export.Read(ctx, ctxReader(ctx, r), s.Dir(), s.keepArchive,
		func(ctx context.Context, info *pathinfo.Info, archive io.Reader) error {
			return s.AddNAR(ctx, info, archive, o)
		})
}

// keptArchive is a file in a directory of its own in the store.
type keptArchive struct {
	*os.File
	staging *Staging
}

func (s *Store) keepArchive(ctx context.Context) (export.Kept, error) {
	st, err := s.StagingDir(ctx)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(st.Path()+"/archive", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, joinErrors(err, st.Close())
	}
	return keptArchive{file, st}, nil
}

// Archive implements [export.Kept].
func (k keptArchive) Archive() (io.Reader, error) {
	_, err := k.Seek(0, io.SeekStart)
	return bufio.NewReaderSize(k.File, 64<<10), err
}

// Close implements [export.Kept].
func (k keptArchive) Close() error { return joinErrors(k.File.Close(), k.staging.Close()) }
