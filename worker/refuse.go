package worker

import (
	"io"

	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// Refuse tells a client that has not been greeted why it cannot be served. It answers the greeting first, and puts the
// error where clients of all ages look for one before their first request. Upstream's daemon hangs up instead.
func Refuse(stream io.ReadWriter, dir storepath.Dir, info protocol.ServerInfo, why error) error {
	in, out, err := protocol.ServerHandshake(wire.NewReader(stream), wire.NewWriter(stream), dir, offered(nil), info)
	if err != nil {
		return orderly(err)
	}
	defer in.Release()
	if g, ok := stream.(greeter); ok {
		g.Greeted()
	}
	c := &conn{out: out}
	c.sendError(why)
	return orderly(out.Flush())
}
