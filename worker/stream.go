package worker

import (
	"bufio"
	"errors"
	"io"
	"iter"

	"nixdaemon/protocol"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/wire"
)

// pullSize is how much is asked of a client at a time, and sent to one.
const pullSize = 64 << 10

// pulled is data that the client sends when asked (1.21 and 1.22). It never
// asks for more than is read, so nothing is lost when reading stops.
type pulled struct{ c *conn }

// Read asks the client for at most len(p) bytes.
func (s *pulled) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n := min(len(p), pullSize)
	err := s.c.tunnel.exclusive(func(w *protocol.Writer) error {
		w.Frame(protocol.FrameRead)
		w.Uint64(uint64(n))
		return w.Flush()
	})
	if err != nil {
		return 0, s.c.breakOff(err)
	}
	data, err := s.c.in.Bytes(n)
	if err != nil {
		return 0, s.c.breakOff(unexpected(err))
	}
	if len(data) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	s.c.in.Refund(len(data)) // the bound on requests is not one on their data
	return copy(p, data), nil
}

// pull gives the client's data for as long as f reads it.
func (c *conn) pull(f func(io.Reader) error) error {
	return f(wire.NewReaderSize(&pulled{c}, pullSize))
}

// push lets f write data for the client, which goes out in frames while work
// goes on.
func (c *conn) push(f func(io.Writer) error) error {
	w := bufio.NewWriterSize(pushed{c}, pullSize)
	if err := f(w); err != nil {
		return err
	}
	return w.Flush()
}

type pushed struct{ c *conn }

// Write sends one frame.
func (s pushed) Write(p []byte) (int, error) {
	err := s.c.tunnel.exclusive(func(w *protocol.Writer) error {
		w.Frame(protocol.FrameWrite)
		w.Bytes(p)
		return w.Flush()
	})
	if err != nil {
		return 0, s.c.breakOff(err)
	}
	return len(p), nil
}

// breakOff notes that the stream cannot be followed any more.
func (c *conn) breakOff(err error) error {
	if c.fatal == nil {
		c.fatal = err
	}
	return err
}

// rawNAR is the one NAR at the current position of a stream. Its consumer sees
// exactly the archive's bytes, and finish moves the stream behind it. The
// archive is read by a coroutine, which runs only while Read or finish do.
type rawNAR struct {
	in      *wire.Reader
	next    func() ([]byte, bool)
	stop    func()
	rest    []byte
	started bool
	ended   bool
	// err is what was wrong with the archive or the stream.
	err error
	// abandoned makes the coroutine end where it is.
	abandoned bool
}

var errAbandoned = errors.New("archive was abandoned")

// newRawNAR begins to read the archive. abandon must be called in the end.
func newRawNAR(in *wire.Reader) *rawNAR {
	n := &rawNAR{in: in}
	n.next, n.stop = iter.Pull(n.pieces)
	return n
}

// pieces reads the whole archive, also when nobody wants its pieces any more.
func (n *rawNAR) pieces(yield func([]byte) bool) {
	n.started = true
	_, n.err = nar.Copy(&pieceWriter{n: n, yield: yield}, n.in)
	n.ended = true
}

type pieceWriter struct {
	n     *rawNAR
	yield func([]byte) bool
	gone  bool
}

// Write passes a piece on, or drops it.
func (w *pieceWriter) Write(p []byte) (int, error) {
	w.gone = w.gone || !w.yield(p)
	if w.n.abandoned {
		return 0, errAbandoned
	}
	return len(p), nil
}

// Read reads the archive.
func (n *rawNAR) Read(p []byte) (int, error) {
	for len(n.rest) == 0 {
		piece, ok := n.next()
		if !ok {
			return 0, n.end()
		}
		n.rest = piece
	}
	read := copy(p, n.rest)
	n.rest = n.rest[read:]
	return read, nil
}

func (n *rawNAR) end() error {
	if n.err != nil {
		return n.err
	}
	return io.EOF
}

// finish skips what was not read.
func (n *rawNAR) finish() error {
	n.stop()
	if !n.started {
		n.started = true
		n.err = nar.Skip(n.in)
	}
	return unexpected(n.err)
}

// abandon ends the coroutine if finish has not.
func (n *rawNAR) abandon() {
	n.abandoned = true
	n.stop()
}

// unexpected turns the end of the stream into an unexpected one: a request
// says itself where it ends.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
