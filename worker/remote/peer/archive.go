package peer

import (
	"bufio"
	"context"
	"io"
)

// archiveBuffer is what is read of an archive at a time.
const archiveBuffer = 256 << 10

// archive is the reading end of a transfer, which it owns.
type archive struct {
	*bufio.Reader
	pipe   *io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

// openArchive turns what writes an archive into a stream to read, and returns
// once that has begun.
func openArchive(ctx context.Context, write func(context.Context, io.Writer) error) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	a := &archive{Reader: bufio.NewReaderSize(r, archiveBuffer), pipe: r, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		out := bufio.NewWriterSize(w, archiveBuffer)
		err := write(ctx, out)
		if err == nil {
			err = out.Flush()
		}
		w.CloseWithError(err)
	}()
	if _, err := a.Peek(1); err != nil {
		a.Close()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // an archive is never empty
		}
		return nil, err
	}
	return a, nil
}

// Close ends the transfer, in the middle if it is not over, and returns when
// its connection is free or gone.
func (a *archive) Close() error {
	a.pipe.Close()
	a.cancel()
	<-a.done
	return nil
}
