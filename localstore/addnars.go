package localstore

import (
	"context"
	"errors"
	"io"

	"nixdaemon/protocol/pathinfo"
)

// AddNARs adds the paths that next gives, in groups; next ends with [io.EOF]. Each path comes after those that it
// refers to, and exactly one archive is consumed from each reader before next is called again. The first error ends
// it; what was added before is valid then, unless it is at fault itself.
func (s *Store) AddNARs(ctx context.Context, next func() (*pathinfo.Info, io.Reader, error), o AddOptions) (err error) {
	im := s.NewImport(o)
	defer func() { err = joinErrors(err, im.Close()) }()
	for {
		info, archive, err := next()
		if errors.Is(err, io.EOF) {
			return im.Flush(ctx)
		}
		if err != nil {
			return err
		}
		if err := im.Add(ctx, info, archive); err != nil {
			return joinErrors(err, im.Flush(ctx))
		}
	}
}
