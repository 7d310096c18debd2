package serving

import (
	"context"
	"io"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/serve"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker"
)

// observedHandler is a handler under the eyes of an observer, who is told of the operation of the worker protocol that
// does the same, or nearly so.
type observedHandler struct {
	h *handler
	o worker.Observer
}

var _ serve.Handler = observedHandler{}

// observed is one request.
func observed[T any](o worker.Observer, op protocol.Op, do func() (T, error)) (T, error) {
	o.OpBegan(op)
	result, err := do()
	o.OpEnded(op, err)
	return result, err
}

func observedError(o worker.Observer, op protocol.Op, do func() error) error {
	_, err := observed(o, op, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// ValidPaths implements serve.Handler.
func (h observedHandler) ValidPaths(ctx context.Context, req serve.ValidPathsRequest) ([]storepath.Path, error) {
	return observed(h.o, protocol.OpQueryValidPaths, func() ([]storepath.Path, error) { return h.h.ValidPaths(ctx, req) })
}

// PathInfo implements serve.Handler.
func (h observedHandler) PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error) {
	return observed(h.o, protocol.OpQueryPathInfo, func() (*pathinfo.Info, error) { return h.h.PathInfo(ctx, p) })
}

// Dump implements serve.Handler.
func (h observedHandler) Dump(ctx context.Context, p storepath.Path, w io.Writer) error {
	return observedError(h.o, protocol.OpNarFromPath, func() error { return h.h.Dump(ctx, p, w) })
}

// Import implements serve.Handler.
func (h observedHandler) Import(ctx context.Context, r *wire.Reader) error {
	return observedError(h.o, protocol.OpAddMultipleToStore, func() error { return h.h.Import(ctx, r) })
}

// BuildPaths implements serve.Handler.
func (h observedHandler) BuildPaths(ctx context.Context, req serve.BuildPathsRequest) error {
	return observedError(h.o, protocol.OpBuildPaths, func() error { return h.h.BuildPaths(ctx, req) })
}

// Closure implements serve.Handler.
func (h observedHandler) Closure(ctx context.Context, paths []storepath.Path, includeOutputs bool) ([]storepath.Path, error) {
	return observed(h.o, protocol.OpQueryPathInfo, func() ([]storepath.Path, error) { return h.h.Closure(ctx, paths, includeOutputs) })
}

// BuildDerivation implements serve.Handler.
func (h observedHandler) BuildDerivation(ctx context.Context, req serve.BuildDerivationRequest) (derivation.BuildResult, error) {
	return observed(h.o, protocol.OpBuildDerivation, func() (derivation.BuildResult, error) { return h.h.BuildDerivation(ctx, req) })
}

// Add implements serve.Handler.
func (h observedHandler) Add(ctx context.Context, info *pathinfo.Info, nar io.Reader) error {
	return observedError(h.o, protocol.OpAddToStoreNar, func() error { return h.h.Add(ctx, info, nar) })
}
