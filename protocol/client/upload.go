package client

import (
	"errors"
	"io"
	"sync/atomic"

	"nixdaemon/protocol"
)

// errAnswered stops the sending of data that the daemon does not want any more.
var errAnswered = errors.New("daemon has answered already")

// dataError is an error of a request's own data, as opposed to the stream's.
type dataError struct{ err error }

func (e *dataError) Error() string { return e.err.Error() }

// CallFramed is Call for a request that is followed by framed data. Data that
// cannot be had in full ends the connection, so that the daemon cannot take
// what has arrived for all there is.
func (c *Conn) CallFramed(op protocol.Op, request func(*protocol.Writer), data func(io.Writer) error, reply func(*protocol.Reader) error) error {
	c.out.Op(op)
	request(c.out)
	frames := c.out.Framed()
	_, err := c.upload(frames, data, frames.Close)
	if err != nil {
		return err
	}
	return c.reply(reply)
}

// CallRaw is Call for a request that is followed by data as it is. A daemon
// that refuses it in the middle does not know where it ends, so that this ends
// the connection, too.
func (c *Conn) CallRaw(op protocol.Op, request func(*protocol.Writer), data func(io.Writer) error, reply func(*protocol.Reader) error) error {
	c.out.Op(op)
	request(c.out)
	whole, err := c.upload(c.out, data, func() error { return nil })
	if !whole {
		c.broken = true
	}
	if err != nil {
		return err
	}
	return c.reply(reply)
}

// upload sends data while it follows what the daemon says: with both ends
// writing and neither reading, full buffers would stop them for ever. It
// returns once the daemon has ended the request, and tells whether all data
// were sent.
func (c *Conn) upload(to io.Writer, data func(io.Writer) error, end func() error) (whole bool, err error) {
	if err := c.out.Flush(); err != nil {
		return false, c.hungUp(err)
	}
	c.spent = true
	var answered atomic.Bool
	said := make(chan error, 1)
	go func() {
		err := c.listen(nil)
		answered.Store(true)
		said <- err
	}()
	w := &sending{to: to, answered: &answered}
	dataErr := data(w)
	if dataErr != nil && w.err == nil {
		c.stream.Close()
		<-said
		c.broken = true
		return false, dataErr
	}
	if err := end(); err == nil {
		c.out.Flush() // a failure shows in what the daemon says, or that it says nothing
	}
	return dataErr == nil, <-said
}

// hungUp gives what the daemon said before it closed its end of the stream.
func (c *Conn) hungUp(err error) error {
	if said := c.listen(nil); isRemote(said) {
		c.broken = true
		return said
	}
	return c.lost(err)
}

// sending stops when the daemon has answered, and keeps errors of the stream
// apart from those of the data.
type sending struct {
	to       io.Writer
	answered *atomic.Bool
	err      error
}

// Write sends p.
func (s *sending) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.answered.Load() {
		s.err = errAnswered
		return 0, s.err
	}
	n, err := s.to.Write(p)
	s.err = err
	return n, err
}

// spending notes when data are taken from a reader.
type spending struct {
	io.Reader
	spent *bool
}

// Read reads.
func (s *spending) Read(p []byte) (int, error) {
	*s.spent = true
	return s.Reader.Read(p)
}
