package worker

import "nixdaemon/protocol"

// Observer is told what a connection does, for status, metrics and logs. Its methods are called on the connection's
// goroutine, for each request OpBegan and then OpEnded; they return at once.
type Observer interface {
	// OpBegan tells that a request's number has been read; the rest may be still to come.
	OpBegan(op protocol.Op)
	// OpEnded tells that it is answered, err being what the client was told has gone wrong, or nil.
	OpEnded(op protocol.Op, err error)
}

// observed is perform under the eyes of the observer.
func (c *conn) observed(op protocol.Op, perform func() error) error {
	o := c.o.Observer
	if o == nil {
		return perform()
	}
	c.told = nil
	o.OpBegan(op)
	err := perform()
	if err != nil {
		c.told = err
	}
	o.OpEnded(op, c.told)
	return err
}
