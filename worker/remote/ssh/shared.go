package ssh

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// share gives the socket of the shared connection, after opening that if it is
// not there, or "" if none is to be used.
func (m *Master) share(ctx context.Context) (socket string, err error) {
	if !m.sharing() {
		return "", nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	socket = m.socket()
	if m.shared != nil && !m.shared.ended() {
		return socket, nil
	}
	m.endShared()
	// A connection that the user's own configuration shares is as good.
	// (Upstream then names a socket that does not exist.)
	if m.checkShared(ctx) {
		return "", ctx.Err()
	}
	return socket, m.openShared(ctx, socket)
}

// openShared starts ssh for nothing but its connection.
func (m *Master) openShared(ctx context.Context, socket string) error {
	// Where the user's own configuration has connections persist ssh would go on by itself, in the background, for ever.
	words := []string{"ssh", m.o.Authority.target(), "-M", "-N", "-S", socket, "-oControlPersist=no"}
	if m.o.Verbose {
		words = append(words, "-v")
	}
	cmd := m.command(append(words, m.options...))
	stdout, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	cmd.Stdout = w
	p, err := startProcess(cmd, m.o.Log)
	if err != nil {
		stdout.Close()
		return fmt.Errorf("failed to start SSH %s to '%s': %w", m.shareWord(), m.o.Authority.Host, execError("ssh", err))
	}
	m.shared, m.stdout = p, stdout
	w.Close() // before waiting for the end of the stream
	c := Conn{in: stdout, out: stdout, process: p}
	if err := c.awaitStarted(ctx); err != nil {
		m.endShared()
		return m.startError(ctx, m.shareWord(), err)
	}
	return nil
}

// shareWord is what errors call the shared connection.
func (m *Master) shareWord() string {
	if m.o.Share {
		return "master connection"
	}
	return "connection"
}

// endShared ends the process that holds the connection, if there is one.
func (m *Master) endShared() {
	if m.shared == nil {
		return
	}
	m.stdout.Close()
	m.shared.terminate()
	m.shared, m.stdout = nil, nil
}

// checkShared asks whether the user's own configuration shares a connection to
// the machine that is there already: ssh says nothing before it uses one.
func (m *Master) checkShared(ctx context.Context) bool {
	words := append([]string{"ssh", "-O", "check", m.o.Authority.target()}, m.options...)
	cmd := m.command(words)
	p, err := startProcess(cmd, func(string) {})
	if err != nil {
		return false
	}
	stop := context.AfterFunc(ctx, p.terminate)
	<-p.done
	stop()
	return cmd.ProcessState != nil && cmd.ProcessState.Success()
}

// errNotStarted says that ssh has not said that the connection is there.
var errNotStarted = errors.New("ssh did not say that it is connected")
