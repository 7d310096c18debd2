package ssh

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Options says how to reach a machine.
type Options struct {
	Authority Authority
	// KeyFile is the private key to log in with; "" leaves that to ssh.
	KeyFile string
	// HostKey is the machine's public key as in a known_hosts file, but for the
	// host, in base64; "" leaves it to ssh whom to believe.
	HostKey string
	// Compress asks for compression.
	Compress bool
	// Share lets all commands use one connection.
	Share bool
	// Keep is Share for commands that come one after the other: there need be no new connection for each. It is given
	// up where the name of the connection's socket would be too long, and errors do not tell it.
	Keep bool
	// Verbose has ssh tell what it does.
	Verbose bool
	// Env is the environment of ssh, whose NIX_SSHOPTS are more options for
	// it; nil is our own.
	Env []string
	// Log receives what ssh and the command write to their standard errors, by
	// lines; nil lets that go to our own.
	Log func(line string)
}

// Master starts commands on one machine. Its methods are safe for concurrent
// use. Close it.
type Master struct {
	o       Options
	options []string // of every call
	tempDir string   // "" if there is none

	mu     sync.Mutex
	shared *process // holds the connection; nil before it is needed
	stdout *os.File // of shared
}

// New checks the options and writes what ssh reads from files.
func New(o Options) (*Master, error) {
	if err := o.Authority.check(); err != nil {
		return nil, err
	}
	if o.Env == nil {
		o.Env = os.Environ()
	}
	m := &Master{o: o}
	if m.direct() {
		m.o.Share, m.o.Keep = false, false
	}
	if err := m.prepare(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// direct tells whether the machine is our own.
func (m *Master) direct() bool { return m.o.Authority.text == "localhost" }

func (m *Master) prepare() error {
	key, err := decodeHostKey(m.o.Authority.Host, m.o.HostKey)
	if err != nil {
		return err
	}
	words, err := SplitWords(m.getenv("NIX_SSHOPTS"))
	if err != nil {
		return fmt.Errorf("while splitting NIX_SSHOPTS '%s': %w", m.getenv("NIX_SSHOPTS"), err)
	}
	if m.direct() {
		return nil
	}
	if m.sharing() || key != "" {
		if m.tempDir, err = os.MkdirTemp("", "nix"); err != nil { // mode 0700
			return err
		}
		m.o.Keep = m.o.Keep && len(m.socket()) <= maxSocketName
	}
	m.options = append(m.options, words...)
	if m.o.KeyFile != "" {
		m.options = append(m.options, "-i", m.o.KeyFile)
	}
	if key != "" {
		file := filepath.Join(m.tempDir, "host-key")
		if err := os.WriteFile(file, []byte(m.o.Authority.Host+" "+key+"\n"), 0o600); err != nil {
			return err
		}
		m.options = append(m.options, "-oUserKnownHostsFile="+file)
	}
	if m.o.Compress {
		m.options = append(m.options, "-C")
	}
	if m.o.Authority.Port != 0 {
		m.options = append(m.options, "-p"+strconv.Itoa(int(m.o.Authority.Port)))
	}
	// The local command runs when the connection is there, before anything that
	// the machine says.
	m.options = append(m.options, "-oPermitLocalCommand=yes", "-oLocalCommand=echo "+started)
	return nil
}

// maxSocketName is how long the name of a socket may be: 104 bytes on macOS, of which ssh takes 17 for a temporary name,
// and an end.
const maxSocketName = 104 - 17 - 1

// sharing tells whether commands go through a connection that is there before them.
func (m *Master) sharing() bool { return m.o.Share || m.o.Keep }

// socket is where the shared connection is found.
func (m *Master) socket() string { return filepath.Join(m.tempDir, "ssh.sock") }

// started is what ssh prints first, see prepare.
const started = "started"

func decodeHostKey(host, text string) (string, error) {
	key, err := base64.StdEncoding.DecodeString(strings.NewReplacer("\n", "", "\r", "").Replace(text))
	if err != nil {
		return "", fmt.Errorf("while decoding ssh public host key for host '%s': %w", host, err)
	}
	return string(key), nil
}

// Close ends the shared connection, which ends what uses it, and removes the
// files.
func (m *Master) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endShared()
	if m.tempDir == "" {
		return nil
	}
	return os.RemoveAll(m.tempDir)
}

func (m *Master) getenv(name string) string {
	value := ""
	for _, v := range m.o.Env {
		if rest, ok := strings.CutPrefix(v, name+"="); ok {
			value = rest
		}
	}
	return value
}

// command prepares a call of a program. ssh runs the local command with
// $SHELL, of which some shells print more than they are told to.
func (m *Master) command(words []string) *exec.Cmd {
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(append([]string{}, m.o.Env...), "SHELL=/bin/sh") // the last of equals counts
	return cmd
}

// commandLine is upstream's (libstore/ssh.cc, startCommand).
func (m *Master) commandLine(socket string, command []string) []string {
	if m.direct() {
		return command
	}
	words := append([]string{"ssh", m.o.Authority.target(), "-x"}, m.options...)
	if socket != "" {
		// Without the shared connection ssh must not make one that nobody would end.
		words = append(words, "-S", socket, "-oControlMaster=no")
	}
	if m.o.Verbose {
		words = append(words, "-v")
	}
	return append(append(words, "--"), command...)
}

// Start starts a command on the machine; its words are put together with
// blanks for the shell there. It returns when the connection is there, and
// fails when the context ends before. The context has no meaning for what is
// started afterwards.
func (m *Master) Start(ctx context.Context, command []string) (*Conn, error) {
	socket, err := m.share(ctx)
	if err != nil {
		return nil, err
	}
	c, err := m.run(m.command(m.commandLine(socket, command)))
	if err != nil {
		if m.direct() {
			return nil, err
		}
		return nil, fmt.Errorf("failed to start SSH connection to '%s': %w", m.o.Authority.Host, err)
	}
	if m.direct() {
		return c, nil
	}
	// Through a shared connection nothing is printed, unless it has gone away
	// and ssh has made one of its own.
	c.mayBegin = socket != ""
	if !m.sharing() && !m.checkShared(ctx) {
		if err := c.awaitStarted(ctx); err != nil {
			c.Close()
			return nil, m.startError(ctx, "connection", err)
		}
	}
	return c, nil
}

func (m *Master) startError(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errNotStarted) {
		return fmt.Errorf("failed to start SSH %s to '%s'", what, m.o.Authority.Host)
	}
	return err
}

func (m *Master) run(cmd *exec.Cmd) (*Conn, error) {
	stdinR, stdinW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdinR.Close()
	stdoutR, stdoutW, err := os.Pipe()
	if err != nil {
		stdinW.Close()
		return nil, err
	}
	defer stdoutW.Close()
	widen(stdinW)
	widen(stdoutR)
	cmd.Stdin, cmd.Stdout = stdinR, stdoutW
	p, err := startProcess(cmd, m.o.Log)
	if err != nil {
		stdinW.Close()
		stdoutR.Close()
		return nil, execError(cmd.Args[0], err)
	}
	return &Conn{in: stdinW, out: stdoutR, process: p}, nil
}
