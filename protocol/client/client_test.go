package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

var pathA = func() storepath.Path {
	p, err := storepath.ParseBase("g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-a")
	if err != nil {
		panic(err)
	}
	return p
}()

// server is a small daemon: each connection logs in and then answers with
// handle until that fails.
type server struct {
	version protocol.Version
	handle  func(r *protocol.Reader, w *protocol.Writer, op protocol.Op) error
	// opened counts connections.
	opened atomic.Int32
	wait   sync.WaitGroup
}

// dial opens a connection to the server, in memory.
func (s *server) dial(context.Context) (io.ReadWriteCloser, error) {
	client, peer := net.Pipe()
	s.opened.Add(1)
	s.wait.Go(func() {
		defer peer.Close()
		s.serve(peer)
	})
	return client, nil
}

func (s *server) serve(peer net.Conn) error {
	version := s.version
	if version.Number == 0 {
		version = protocol.DaemonVersion()
	}
	r, w, err := protocol.ServerHandshake(wire.NewReader(peer), wire.NewWriter(peer), storepath.DefaultDir, version,
		protocol.ServerInfo{NixVersion: "2.34.8", Trust: protocol.Trusted})
	if err != nil {
		return err
	}
	w.Frame(protocol.FrameLast)
	for err == nil {
		if err = w.Flush(); err != nil {
			return err
		}
		var op protocol.Op
		if op, err = r.Op(); err == nil {
			err = s.handle(r, w, op)
		}
	}
	return err
}

// yes answers OpIsValidPath.
func yes(r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
	if op != protocol.OpIsValidPath {
		return errors.New("unexpected operation")
	}
	_, err := r.StorePath()
	w.Frame(protocol.FrameLast)
	w.Bool(true)
	return err
}

func open(t *testing.T, s *server, o Options) *Client {
	t.Helper()
	o.Dial = s.dial
	c := New(o)
	t.Cleanup(func() {
		c.Close()
		s.wait.Wait()
	})
	return c
}

func TestPoolIsShared(t *testing.T) {
	s := &server{handle: yes}
	c := open(t, s, Options{MaxConns: 3})
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			for range 20 {
				if valid, err := c.IsValid(t.Context(), pathA); err != nil || !valid {
					t.Errorf("got %v, %v", valid, err)
					return
				}
			}
		})
	}
	wait.Wait()
	if n := s.opened.Load(); n < 1 || n > 3 {
		t.Errorf("opened %d connections, want at most 3", n)
	}
}

// TestReopens calls again when a connection died while it lay idle.
func TestReopens(t *testing.T) {
	once := &server{}
	once.handle = func(r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
		if err := yes(r, w, op); err != nil {
			return err
		}
		w.Flush()
		return io.EOF // hang up after one answer
	}
	c := open(t, once, Options{})
	for range 5 {
		if valid, err := c.IsValid(t.Context(), pathA); err != nil || !valid {
			t.Fatalf("got %v, %v", valid, err)
		}
	}
	if n := once.opened.Load(); n != 5 {
		t.Errorf("opened %d connections, want 5", n)
	}
}

// TestRefusal keeps a connection whose request was refused.
func TestRefusal(t *testing.T) {
	s := &server{handle: func(r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
		r.StorePath()
		w.LogLine("thinking\n")
		w.Error(&protocol.Error{Message: "no", Traces: []string{"while asking"}})
		return nil
	}}
	c := open(t, s, Options{})
	for range 3 {
		_, err := c.IsValid(t.Context(), pathA)
		var refusal *protocol.Error
		if !errors.As(err, &refusal) || refusal.Message != "no" || len(refusal.Traces) != 1 {
			t.Errorf("got %v", err)
		}
	}
	if n := s.opened.Load(); n != 1 {
		t.Errorf("opened %d connections, want 1", n)
	}
}

// TestBrokenMidway does not repeat a request that the daemon began to answer.
func TestBrokenMidway(t *testing.T) {
	var asked atomic.Int32
	s := &server{handle: func(r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
		r.StorePath()
		if asked.Add(1) == 1 {
			w.Frame(protocol.FrameLast)
			w.Bool(true)
			return nil
		}
		w.LogLine("working\n")
		w.Flush()
		return io.EOF
	}}
	c := open(t, s, Options{})
	if _, err := c.IsValid(t.Context(), pathA); err != nil {
		t.Fatal(err)
	}
	if _, err := c.IsValid(t.Context(), pathA); err == nil {
		t.Error("a request that broke off succeeded")
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
}

func TestCancel(t *testing.T) {
	begun := make(chan struct{})
	s := &server{handle: func(r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
		r.StorePath()
		close(begun)
		_, err := r.Op() // never comes
		return err
	}}
	c := open(t, s, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	if _, err := c.IsValid(ctx, pathA); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestClosed(t *testing.T) {
	c := open(t, &server{handle: yes}, Options{})
	c.Close()
	if _, err := c.IsValid(t.Context(), pathA); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// lines keeps log messages.
type lines struct {
	activity.Discard
	mu   sync.Mutex
	text []string
}

func (l *lines) Message(_ activity.Level, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, text)
}

func TestSettingsAndLog(t *testing.T) {
	var got protocol.ClientOptions
	s := &server{handle: func(r *protocol.Reader, w *protocol.Writer, op protocol.Op) (err error) {
		if op != protocol.OpSetOptions {
			return yes(r, w, op)
		}
		got, err = r.Options()
		w.LogLine("noted\n")
		w.Frame(protocol.FrameLast)
		return err
	}}
	var log lines
	c := open(t, s, Options{Settings: &protocol.ClientOptions{MaxJobs: 7}, Log: &log})
	for range 2 {
		if _, err := c.IsValid(t.Context(), pathA); err != nil {
			t.Fatal(err)
		}
	}
	if got.MaxJobs != 7 || len(log.text) != 1 || log.text[0] != "noted" {
		t.Errorf("got %+v, log %q", got, log.text)
	}
}

// TestAddNAR sends an archive in each of the three forms.
func TestAddNAR(t *testing.T) {
	archive := nartest.File(strings.Repeat("contents ", 40000))
	for _, minor := range []uint8{18, 20, 21, 22, 23, 38} {
		var got bytes.Buffer
		s := &server{version: protocol.Version{Number: protocol.Minor(minor)}, handle: func(r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
			if _, err := r.AddToStoreNar(); err != nil {
				return err
			}
			var err error
			switch {
			case minor >= 23:
				_, err = io.Copy(&got, r.Framed())
			case minor >= 21:
				for err == nil && got.Len() < len(archive) {
					w.Frame(protocol.FrameRead)
					w.Uint64(1000)
					w.Flush()
					var data []byte
					data, err = r.Bytes(1000)
					got.Write(data)
				}
			default:
				_, err = nar.Copy(&got, r.Reader)
			}
			w.Frame(protocol.FrameLast)
			return err
		}}
		c := open(t, s, Options{})
		info := &pathinfo.Info{Path: pathA, NarHash: nixhash.Of(nixhash.SHA256, string(archive)), NarSize: uint64(len(archive))}
		if err := c.AddNAR(t.Context(), protocol.AddToStoreNarRequest{Info: info}, bytes.NewReader(archive)); err != nil {
			t.Errorf("1.%d: %v", minor, err)
		}
		if !bytes.Equal(got.Bytes(), archive) {
			t.Errorf("1.%d: the archive arrived with %d bytes, want %d", minor, got.Len(), len(archive))
		}
	}
}

func TestUnixDialFails(t *testing.T) {
	c := New(Options{Dial: Unix("/does/not/exist")})
	if _, err := c.IsValid(t.Context(), pathA); err == nil || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Errorf("got %v", err)
	}
}

// TestUploadIsNotRepeated does not send the rest of data whose beginning went
// down with a connection.
func TestUploadIsNotRepeated(t *testing.T) {
	s := &server{}
	s.handle = func(r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
		if op != protocol.OpIsValidPath {
			io.CopyN(io.Discard, r.Reader, 1000)
			return io.EOF
		}
		return yes(r, w, op)
	}
	c := open(t, s, Options{MaxConns: 1})
	if _, err := c.IsValid(t.Context(), pathA); err != nil {
		t.Fatal(err)
	}
	data := strings.NewReader(strings.Repeat("data ", 1<<18))
	_, err := c.AddToStore(t.Context(), protocol.AddToStoreRequest{Name: "a", MethodAlgo: "fixed:sha256"}, data)
	if !errors.Is(err, ErrDisconnected) {
		t.Errorf("got %v", err)
	}
	if n := s.opened.Load(); n != 1 {
		t.Errorf("opened %d connections, want 1", n)
	}
}

// TestStale does not take what a daemon says unasked for the answer to the
// next request.
func TestStale(t *testing.T) {
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wait sync.WaitGroup
	defer wait.Wait()
	s := &server{}
	twice := make(chan struct{}, 1)
	s.handle = func(r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
		if op == protocol.OpIsValidPath {
			return yes(r, w, op)
		}
		w.Error(&protocol.Error{Message: "invalid operation"})
		w.Flush()
		w.Error(&protocol.Error{Message: "invalid operation"})
		w.Flush()
		twice <- struct{}{}
		return io.EOF
	}
	wait.Go(func() {
		for range 2 {
			if conn, err := l.Accept(); err == nil {
				wait.Go(func() {
					defer conn.Close()
					s.serve(conn)
				})
			}
		}
	})
	c := New(Options{Dial: Unix(l.Addr().String()), MaxConns: 1})
	defer c.Close()
	if err := c.Optimise(t.Context()); err == nil {
		t.Error("an unknown operation succeeded")
	}
	<-twice
	if valid, err := c.IsValid(t.Context(), pathA); err != nil || !valid {
		t.Errorf("got %v, %v", valid, err)
	}
}

// TestLongUnixPath connects where the path does not fit a socket's address.
func TestLongUnixPath(t *testing.T) {
	dir := t.TempDir() + "/" + strings.Repeat("long", 40)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	l, err := net.Listen("unix", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := Unix(dir + "/s")(t.Context())
	if err != nil && runtime.GOOS == "linux" {
		t.Fatal(err)
	}
	if err == nil {
		conn.Close()
	}
	_, err = Unix("/x/" + strings.Repeat("y", 200))(t.Context())
	if err == nil || !strings.HasSuffix(err.Error(), "is too long") {
		t.Errorf("got %v", err)
	}
}
