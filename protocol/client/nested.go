package client

import (
	"context"
	"errors"
	"io"

	"nixdaemon/protocol"
	"nixdaemon/protocol/pathinfo"
)

// Errors of requests that only the daemon of a build answers, in upstream's
// words (libstore/remote-store.cc).
var (
	ErrNoScanning = errors.New("the daemon does not support AddToStoreScanning, perhaps this is not in a recursive-nix builder?")
	ErrNoSubmit   = errors.New("the daemon does not support SubmitOutput, perhaps this is not in a derivation with the `builder-rpc-v0` feature?")
)

// AddToStoreScanning adds content under its content address with references to
// what it mentions of all that the build can see, and gives its metadata.
func (c *Client) AddToStoreScanning(ctx context.Context, req protocol.AddToStoreScanningRequest, data io.Reader) (*pathinfo.Info, error) {
	var info *pathinfo.Info
	err := c.Do(ctx, func(conn *Conn) error {
		if !conn.Version().Has(protocol.FeatureAddToStoreScanning) {
			return ErrNoScanning
		}
		return conn.CallFramed(protocol.OpAddToStoreScanning, func(w *protocol.Writer) { w.AddToStoreScanning(req) },
			copyFrom(data), func(r *protocol.Reader) (err error) {
				info, err = r.Info()
				return err
			})
	})
	return info, err
}

// SubmitOutput says which path is an output of the build.
func (c *Client) SubmitOutput(ctx context.Context, req protocol.SubmitOutputRequest) error {
	return c.Do(ctx, func(conn *Conn) error {
		if !conn.Version().Has(protocol.FeatureSubmitOutput) {
			return ErrNoSubmit
		}
		return conn.Call(protocol.OpSubmitOutput, func(w *protocol.Writer) { w.SubmitOutput(req) },
			func(r *protocol.Reader) error {
				_, err := r.Uint64()
				return err
			})
	})
}
