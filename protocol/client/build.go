package client

import (
	"context"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// BuildPaths makes the paths.
func (c *Client) BuildPaths(ctx context.Context, paths []derivation.DerivedPath, mode derivation.BuildMode) error {
	return tell(ctx, c, protocol.OpBuildPaths, buildRequest(paths, mode))
}

// BuildPathsWithResults makes the paths and tells how each went. Of daemons
// before 1.34 only success can be told: the first failure is an error.
func (c *Client) BuildPathsWithResults(ctx context.Context, paths []derivation.DerivedPath, mode derivation.BuildMode) ([]derivation.KeyedBuildResult, error) {
	if v, err := c.Negotiated(ctx); err != nil || !v.AtLeast(34) {
		return c.buildThenAsk(ctx, paths, mode, err)
	}
	return ask(ctx, c, protocol.OpBuildPathsWithResults, buildRequest(paths, mode),
		func(r *protocol.Reader) ([]derivation.KeyedBuildResult, error) { return r.KeyedBuildResults() })
}

func buildRequest(paths []derivation.DerivedPath, mode derivation.BuildMode) func(*protocol.Writer) {
	return func(w *protocol.Writer) {
		w.DerivedPaths(paths)
		w.BuildMode(mode)
	}
}

// BuildDerivation builds a derivation that the daemon need not have.
func (c *Client) BuildDerivation(ctx context.Context, req protocol.BuildDerivationRequest) (derivation.BuildResult, error) {
	var result derivation.BuildResult
	err := c.Do(ctx, func(conn *Conn) error {
		conn.out.Op(protocol.OpBuildDerivation)
		if err := conn.out.BuildDerivation(req); err != nil {
			conn.broken = true
			return err
		}
		return conn.finish(nil, func(r *protocol.Reader) (err error) {
			result, err = r.BuildResult()
			return err
		})
	})
	return result, err
}

// EnsurePath makes a path valid, by substitution.
func (c *Client) EnsurePath(ctx context.Context, p storepath.Path) error {
	return tell(ctx, c, protocol.OpEnsurePath, about(p))
}

// QueryMissing tells what building the paths would take. Daemons before 1.19
// are asked path by path.
func (c *Client) QueryMissing(ctx context.Context, paths []derivation.DerivedPath) (protocol.Missing, error) {
	if v, err := c.Negotiated(ctx); err != nil || !v.AtLeast(19) {
		return c.findMissing(ctx, paths, err)
	}
	return ask(ctx, c, protocol.OpQueryMissing, func(w *protocol.Writer) { w.DerivedPaths(paths) },
		func(r *protocol.Reader) (protocol.Missing, error) { return r.Missing() })
}
