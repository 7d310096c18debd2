package ssh

import (
	"context"
	"io"
	"os"
	"sync"
)

// Conn is a started command: reading gives its standard output and writing goes
// to its standard input. Reads and writes may overlap; Close may be called at
// any time and any number of times.
type Conn struct {
	in, out *os.File
	process *process
	close   sync.Once

	// Owned by the reader. While mayBegin is true, the stream may begin with
	// what ssh prints; held is what was read to find out and is not that.
	mayBegin bool
	held     []byte
}

// Read reads from the command.
func (c *Conn) Read(p []byte) (int, error) {
	if c.mayBegin && len(p) > 0 {
		c.mayBegin = false
		if err := c.skipStarted(); err != nil {
			return 0, err
		}
	}
	if len(c.held) > 0 {
		n := copy(p, c.held)
		c.held = c.held[n:]
		return n, nil
	}
	return c.out.Read(p)
}

// skipStarted reads only as far as the stream is like that line, since nothing
// else may come for a while.
func (c *Conn) skipStarted() error {
	const line = started + "\n"
	for i := range len(line) {
		var b [1]byte
		n, err := c.out.Read(b[:])
		c.held = append(c.held, b[:n]...)
		if n > 0 && b[0] != line[i] || err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	c.held = nil
	return nil
}

// Write writes to the command.
func (c *Conn) Write(p []byte) (int, error) { return c.in.Write(p) }

// CloseWrite tells the command that nothing more comes.
func (c *Conn) CloseWrite() error { return c.in.Close() }

// Ended tells whether the local process is gone.
func (c *Conn) Ended() bool { return c.process.ended() }

// Pid is the number of the local process.
func (c *Conn) Pid() int { return c.process.pid }

// Close hangs up and returns when the local process is gone, which it is made
// to be if it does not end soon enough by itself.
func (c *Conn) Close() error {
	c.close.Do(func() {
		c.in.Close()
		c.out.Close()
	})
	c.process.stop()
	return nil
}

// maxFirstLine bounds what ssh may print instead of the line that is expected.
const maxFirstLine = 4096

// awaitStarted reads the first line, byte by byte as what follows is not ours.
func (c *Conn) awaitStarted(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.process.terminate() })
	defer stop()
	var line []byte
	for len(line) < maxFirstLine {
		var b [1]byte
		if _, err := io.ReadFull(c.out, b[:]); err != nil {
			return errNotStarted
		}
		if b[0] == '\n' {
			break
		}
		line = append(line, b[0])
	}
	if string(line) != started {
		return errNotStarted
	}
	return nil
}
