package client

import (
	"context"
	"errors"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/pathinfo"
)

// tooOldForRealisations is upstream's text (libstore/remote-store.cc,
// queryRealisationUncached).
const tooOldForRealisations = "the daemon is too old to support content-addressing derivations, please upgrade it to 2.4"

var (
	errTooOldForRealisations = errors.New(tooOldForRealisations)
	// errRealisationKey says that the daemon keys realisations by what the
	// caller does not know.
	errRealisationKey = errors.New("the daemon identifies realisations in a way that the client's protocol version does not have")
)

// realisationKey tells whether an id can be expressed on a connection.
func realisationKey(v protocol.Version, id pathinfo.DrvOutput) error {
	if v.Has(protocol.FeatureRealisationWithPath) == id.DrvPath.IsZero() && (id.DrvHash.IsZero() || id.DrvPath.IsZero()) {
		return errRealisationKey
	}
	return nil
}

// QueryRealisation gives a realisation, nil if it is unknown. The id must be
// of the kind that the connection speaks of: see protocol.Reader.DrvOutput.
func (c *Client) QueryRealisation(ctx context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	var found *pathinfo.Realisation
	err := c.Do(ctx, func(conn *Conn) error {
		if !conn.Version().AtLeast(27) {
			conn.log.Message(activity.Warn, "warning: "+tooOldForRealisations)
			return nil
		}
		if err := realisationKey(conn.Version(), id); err != nil {
			return err
		}
		return conn.Call(protocol.OpQueryRealisation, func(w *protocol.Writer) { w.DrvOutput(id) },
			func(r *protocol.Reader) (err error) {
				found, err = r.FoundRealisation(id)
				return err
			})
	})
	return found, err
}

// RegisterRealisation registers a realisation.
func (c *Client) RegisterRealisation(ctx context.Context, r *pathinfo.Realisation) error {
	return c.Do(ctx, func(conn *Conn) error {
		if !conn.Version().AtLeast(27) {
			return errTooOldForRealisations
		}
		if err := realisationKey(conn.Version(), r.ID); err != nil {
			return err
		}
		return conn.Call(protocol.OpRegisterDrvOutput, func(w *protocol.Writer) { w.RegisterRealisation(r) }, nil)
	})
}
