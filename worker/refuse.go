package worker

import (
	"io"

	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// Greeting is a client that has been greeted before there is a store to serve it from. It waits for the end of the login,
// where clients of all ages show what they are told. [Options] take it from there, or Refuse ends it.
type Greeting struct {
	in  *protocol.Reader
	out *protocol.Writer
}

// Greet answers a client's greeting, but for its end. It gives nothing if the client has gone.
func Greet(stream io.ReadWriter, dir storepath.Dir, info protocol.ServerInfo) (*Greeting, error) {
	in, out, err := protocol.ServerHandshake(wire.NewReader(stream), wire.NewWriter(stream), dir, offered(nil), info)
	if err != nil {
		return nil, orderly(err)
	}
	if g, ok := stream.(greeter); ok {
		g.Greeted()
	}
	return &Greeting{in, out}, nil
}

// Tell has the client show a line.
func (g *Greeting) Tell(text string) error {
	g.out.LogLine(text + "\n")
	return g.out.Flush()
}

// Refuse tells the client why it cannot be served.
func (g *Greeting) Refuse(why error) error {
	c := &conn{out: g.out}
	c.sendError(why)
	return orderly(g.out.Flush())
}

// Release gives the client's buffers back, when it is not served in the end.
func (g *Greeting) Release() { g.in.Release() }

// Refuse tells a client that has not been greeted why it cannot be served. It answers the greeting first, and puts the
// error where clients of all ages look for one before their first request. Upstream's daemon hangs up instead.
func Refuse(stream io.ReadWriter, dir storepath.Dir, info protocol.ServerInfo, why error) error {
	g, err := Greet(stream, dir, info)
	if g == nil || err != nil {
		return err
	}
	defer g.Release()
	return g.Refuse(why)
}
