package protocol

import (
	"errors"
	"io"
	"strings"

	"nixdaemon/protocol/wire"
)

// maxGreeting bounds what is kept of a greeting that is none.
const maxGreeting = 64 << 10

// Greeting is a server's stream that keeps what the server says first, to be
// shown when that is no protocol but the complaint of a shell, say.
type Greeting struct {
	stream io.ReadWriter
	text   []byte
	done   bool
}

// NewGreeting listens to a stream.
func NewGreeting(stream io.ReadWriter) *Greeting { return &Greeting{stream: stream} }

// Read reads from the stream.
func (g *Greeting) Read(p []byte) (int, error) {
	n, err := g.stream.Read(p)
	if !g.done {
		g.text = append(g.text, p[:min(n, maxGreeting-len(g.text))]...)
	}
	return n, err
}

// Done ends the greeting: nothing more is kept.
func (g *Greeting) Done() { g.text, g.done = nil, true }

// Silent tells whether nothing was said.
func (g *Greeting) Silent() bool { return len(g.text) == 0 }

// Junk tells whether the error of a login is due to something that cannot be
// one, and what that is. It hangs up, and waits for the end of what is said.
func (g *Greeting) Junk(err error) (text string, junk bool) {
	var malformed *wire.Error
	if !errors.As(err, &malformed) {
		return "", false
	}
	if w, ok := g.stream.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
	for buf := make([]byte, 4096); len(g.text) < maxGreeting; {
		if _, err := g.Read(buf); err != nil {
			break
		}
	}
	return strings.TrimRight(string(g.text), "\r\n"), true
}
