package worker

import (
	"io"

	"nixdaemon/protocol"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/wire"
)

// pullSize is how much is asked of a client at a time.
const pullSize = 64 << 10

// pulled is data that the client sends when asked (1.21 and 1.22). It never
// asks for more than is read, so nothing is lost when reading stops.
type pulled struct{ c *conn }

// Read asks the client for at most len(p) bytes.
func (s *pulled) Read(p []byte) (int, error) {
	err := s.c.tunnel.exclusive(func(w *protocol.Writer) error {
		w.Frame(protocol.FrameRead)
		w.Uint64(uint64(len(p)))
		return w.Flush()
	})
	if err != nil {
		return 0, err
	}
	data, err := s.c.in.Bytes(len(p))
	if err != nil {
		return 0, err
	}
	if len(data) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	return copy(p, data), nil
}

// pushed is data for the client that goes out in frames while work goes on.
type pushed struct{ c *conn }

// Write sends one frame.
func (s pushed) Write(p []byte) (int, error) {
	err := s.c.tunnel.exclusive(func(w *protocol.Writer) error {
		w.Frame(protocol.FrameWrite)
		w.String(string(p))
		return w.Flush()
	})
	return len(p), err
}

// rawNAR is the one NAR at the current position of a stream. Its consumer sees
// exactly the archive's bytes, and finish moves the stream behind it.
type rawNAR struct {
	pipe *io.PipeReader
	done chan error
}

// newRawNAR begins to read the archive. finish must be called.
func newRawNAR(in *wire.Reader) *rawNAR {
	r, w := io.Pipe()
	n := &rawNAR{pipe: r, done: make(chan error, 1)}
	go func() {
		_, err := nar.Copy(&lenient{w: w}, in)
		w.CloseWithError(err)
		n.done <- err
	}()
	return n
}

// Read reads the archive.
func (n *rawNAR) Read(p []byte) (int, error) { return n.pipe.Read(p) }

// finish skips what was not read and waits for the end of the archive.
func (n *rawNAR) finish() error {
	n.pipe.Close()
	return <-n.done
}

// lenient passes on what its reader wants, and drops the rest.
type lenient struct {
	w    io.Writer
	gone bool
}

// Write never fails.
func (l *lenient) Write(p []byte) (int, error) {
	if !l.gone {
		_, err := l.w.Write(p)
		l.gone = err != nil
	}
	return len(p), nil
}
