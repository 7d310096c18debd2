package worker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// TestPanic: what goes wrong for one client is told to it, logged, and
// harmless for the others.
func TestPanic(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	w.log = zerolog.New(&log)
	other := w.dial(false, minor(38))
	p := w.dial(false, minor(38))
	w.builder.do = func(_ context.Context, sess *session.Session) error {
		sess.Log.Message(activity.Info, "about to fail")
		panic("the reason")
	}
	p.send(protocol.OpEnsurePath, func(to *protocol.Writer) { aFile(w, to) })
	p.mustEnd(2, "internal error in EnsurePath")
	if !slices.Contains(p.log.lines, "about to fail") {
		t.Error(p.log.lines)
	}
	if s := log.String(); !strings.Contains(s, "the reason") || !strings.Contains(s, "conn_test.go") {
		t.Error("log: ", s)
	}
	other.inStep()
}

// TestPanicWithinData does not leave the reader of a raw archive behind.
func TestPanicWithinData(t *testing.T) {
	before := runtime.NumGoroutine()
	w := newWorld(t)
	p := w.dial(false, minor(24))
	broken := &conn{in: p.in, out: p.out, tunnel: newTunnel(p.out, 0)}
	func() {
		defer func() { recover() }()
		broken.in.Reset(strings.NewReader(archiveOf(strings.Repeat("x", 200<<10))))
		broken.raw(context.Background(), func(r io.Reader) error {
			r.Read(make([]byte, 1))
			panic("in the middle")
		})
	}()
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	w.store.Close()
	goroutines(t, before+1)
}

// TestHangUpCancels: the context of a request's work ends with that of the
// connection, and the client is told if it still listens.
func TestHangUpCancels(t *testing.T) {
	w := newWorld(t)
	started := make(chan struct{})
	w.builder.do = func(ctx context.Context, _ *session.Session) error {
		close(started)
		<-ctx.Done()
		return fmt.Errorf("build: %w", context.Cause(ctx))
	}
	p := w.dial(false, minor(38))
	p.send(protocol.OpBuildPaths, func(to *protocol.Writer) { buildIn(derivation.BuildNormal)(w, to) })
	<-started
	p.cancel()
	p.mustFail(textInterrupted)
	if err := <-p.served; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	p.served <- nil
}

// TestGoneDuringWork: nothing can be told to who is gone.
func TestGoneDuringWork(t *testing.T) {
	w := newWorld(t)
	p := w.dial(false, minor(38))
	w.builder.do = func(_ context.Context, sess *session.Session) error {
		p.conn.Close()
		for range 100 {
			sess.Log.Message(activity.Info, strings.Repeat("x", 10<<10))
		}
		return nil
	}
	p.send(protocol.OpEnsurePath, func(to *protocol.Writer) { aFile(w, to) })
	if err := p.end(); err != nil {
		t.Error(err)
	}
}

// TestLog shows what reaches which client during and outside of work.
func TestLog(t *testing.T) {
	w := newWorld(t)
	var sink activity.Sink
	w.builder.do = func(_ context.Context, sess *session.Session) error {
		sink = sess.Log
		for level := activity.Error; level <= activity.Vomit; level++ {
			sess.Log.Message(level, fmt.Sprint("level ", level))
		}
		sess.Log.Start(1, activity.Info, activity.Build, "building 'x'", []activity.Field{activity.Text("x"), activity.Number(1)}, 0)
		sess.Log.Result(1, activity.BuildLogLine, []activity.Field{activity.Text("line")})
		sess.Log.Start(2, activity.Vomit, activity.Unknown, "quiet", nil, 1)
		sess.Log.Start(3, activity.Info, activity.Realise, "", nil, 1)
		sess.Log.Stop(1)
		return nil
	}
	ensure := func(p *peer) {
		p.send(protocol.OpEnsurePath, func(to *protocol.Writer) { aFile(w, to) })
		p.mustWork()
		theOne(p.in)
	}
	for _, v := range []uint8{19, 20, 38} {
		p := w.dial(false, minor(v))
		ensure(p)
		want := []string{"level 0", "level 1", "level 2", "level 3"}
		if v < 20 {
			want = append(want, "building 'x'...")
		} else if len(p.log.kinds) != 3 || p.log.stops != 1 {
			t.Error(v, p.log.kinds, p.log.stops)
		}
		if !slices.Equal(p.log.lines, want) {
			t.Errorf("%d: %q", v, p.log.lines)
		}
		// Between requests: kept for the next one.
		p.inStep()
		p.log.lines = nil
		sink.Message(activity.Warn, "between")
		p.inStep()
		if !slices.Equal(p.log.lines, []string{"between"}) {
			t.Errorf("%d: %q", v, p.log.lines)
		}
		// A quiet client and a curious one.
		for verbosity, lines := range map[uint64]int{0: 1, 6: 8} {
			p.send(protocol.OpSetOptions, func(to *protocol.Writer) { to.Options(protocol.ClientOptions{Verbosity: verbosity}) })
			p.mustWork()
			p.log.lines = nil
			ensure(p)
			got := slices.DeleteFunc(p.log.lines, func(s string) bool { return strings.HasPrefix(s, "building") })
			if len(got) != lines {
				t.Errorf("%d, verbosity %d: %q", v, verbosity, got)
			}
			if curious := slices.Contains(got, "performing daemon worker op: 10"); curious != (verbosity == 6) {
				t.Errorf("%d, verbosity %d: %q", v, verbosity, got)
			}
		}
	}
}

// TestLogFromEverywhere has many goroutines log while requests come and go.
func TestLogFromEverywhere(t *testing.T) {
	w := newWorld(t)
	var sink activity.Sink
	ready := make(chan struct{})
	w.builder.do = func(_ context.Context, sess *session.Session) error {
		if sink == nil {
			sink = sess.Log
			close(ready)
		}
		return nil
	}
	p := w.dial(false, minor(38))
	ensure := func() {
		p.send(protocol.OpEnsurePath, func(to *protocol.Writer) { aFile(w, to) })
		p.mustWork()
		if err := theOne(p.in); err != nil {
			t.Fatal(err)
		}
	}
	ensure()
	<-ready
	var wait sync.WaitGroup
	const each = 200
	for i := range 4 {
		wait.Go(func() {
			for j := range each {
				sink.Message(activity.Info, fmt.Sprint(i, " ", j))
				sink.Start(activity.ID(i), 0, activity.Build, "", nil, 0)
				sink.Stop(activity.ID(i))
			}
		})
	}
	for range 200 {
		ensure()
	}
	wait.Wait()
	ensure()
	if len(p.log.lines) != 4*each || p.log.stops != 4*each {
		t.Error(len(p.log.lines), p.log.stops)
	}
	p.inStep()
}

// idleStream counts how often its owner is told that the client is at rest.
type idleStream struct {
	io.Reader
	io.Writer
	idle int
}

func (s *idleStream) Idle() { s.idle++ }

// script is what a client says in one go.
func (w *world) script(v protocol.Version, requests func(*protocol.Writer)) string {
	var b bytes.Buffer
	raw := wire.NewWriter(&b)
	raw.Uint64(0x6e697863)
	raw.Uint64(uint64(v.Number))
	if v.AtLeast(38) {
		raw.Uint64(uint64(len(v.Features)))
		for _, f := range v.Features {
			raw.String(string(f))
		}
	}
	raw.Uint64(0)
	raw.Uint64(0)
	requests(protocol.NewWriter(raw, w.store.Dir(), v))
	raw.Flush()
	return b.String()
}

// play serves a script and gives what Serve returned.
func (w *world) play(stream io.ReadWriter) error {
	return Serve(context.Background(), stream, Options{
		Store: w.store, Builder: &w.builder, Collector: &w.collector, Roots: w.store.NewTempRoots(),
		RequireSigs: true, Keys: func(*settings.Settings) pathinfo.Keys { return w.keys },
		NixVersion: "2.34.8", Settings: w.set, IDs: &w.ids, Log: w.log,
	})
}

// TestPipelined answers requests that come together one after the other, and
// rests once, after the last.
func TestPipelined(t *testing.T) {
	w := newWorld(t)
	var out bytes.Buffer
	s := &idleStream{Writer: &out, Reader: strings.NewReader(w.script(minor(37), func(to *protocol.Writer) {
		for range 3 {
			to.Op(protocol.OpIsValidPath)
			aFile(w, to)
		}
	}))}
	if err := w.play(s); err != nil {
		t.Fatal(err)
	}
	if s.idle != 1 {
		t.Error("rested so many times: ", s.idle)
	}
	var one bytes.Buffer
	binary.Write(&one, binary.LittleEndian, []uint64{uint64(protocol.FrameLast), 1})
	if !bytes.HasSuffix(out.Bytes(), bytes.Repeat(one.Bytes(), 3)) {
		t.Errorf("%q", out.Bytes())
	}
}

// TestBrokenContents: an archive that cannot be sent to its end closes the
// connection, for which the client is not to blame.
func TestBrokenContents(t *testing.T) {
	w := newWorld(t)
	if err := os.Remove(w.store.RealPath(w.file.Path)); err != nil {
		t.Fatal(err)
	}
	p := w.dial(false, minor(38))
	p.send(protocol.OpNarFromPath, func(to *protocol.Writer) { aFile(w, to) })
	p.mustWork()
	if b, err := io.ReadAll(p.in); err != nil || strings.HasPrefix(string(b), archiveOf("contents")) {
		t.Fatal(len(b), err)
	}
	if err := p.end(); err == nil {
		t.Error("Serve did not say why")
	}
}

// hostile gives what no honest client sends.
func (w *world) hostile() map[string]string {
	v := minor(38)
	all := map[string]string{
		"nothing":   "",
		"magic":     "GET \x00\x00\x00\x00 / HTTP/1.1\r\n\r\n",
		"too old":   w.script(minor(17), func(*protocol.Writer) {}),
		"no client": w.script(v, func(*protocol.Writer) {})[:12],
	}
	huge := uint64(1) << 62
	for name, f := range map[string]func(*protocol.Writer){
		"features": nil,
		"huge string": func(to *protocol.Writer) {
			to.Op(protocol.OpIsValidPath)
			to.Uint64(huge)
		},
		"long text, cut off": func(to *protocol.Writer) {
			to.Op(protocol.OpAddTextToStore)
			to.String("x")
			to.Uint64(wire.MaxString)
			to.WriteString("x")
		},
		"many paths, cut off": func(to *protocol.Writer) {
			to.Op(protocol.OpQueryValidPaths)
			to.Uint64(wire.MaxCount)
		},
		"huge frame": func(to *protocol.Writer) {
			to.Op(protocol.OpAddToStore)
			to.AddToStore(protocol.AddToStoreRequest{Name: "x", MethodAlgo: "fixed:sha256"})
			to.Uint64(1<<32 - 1)
			to.WriteString("x")
		},
		"frame too large": func(to *protocol.Writer) {
			to.Op(protocol.OpAddToStore)
			to.AddToStore(protocol.AddToStoreRequest{Name: "x", MethodAlgo: "fixed:sha256"})
			to.Uint64(1 << 32)
		},
		"archive without end": func(to *protocol.Writer) {
			to.Op(protocol.OpAddToStore)
			to.AddToStore(protocol.AddToStoreRequest{Name: "x", MethodAlgo: "fixed:r:sha256"})
			a := archiveOf("x")[:64]
			to.Uint64(uint64(len(a)) + 8)
			to.WriteString(a)
			to.Uint64(huge)
		},
		"many entries, cut off": func(to *protocol.Writer) {
			to.Op(protocol.OpAddMultipleToStore)
			to.Bool(false)
			to.Bool(false)
			to.Uint64(16)
			to.Uint64(huge)
			to.Uint64(huge)
		},
		"deep path": func(to *protocol.Writer) {
			to.Op(protocol.OpBuildPaths)
			to.Uint64(1)
			to.String(w.store.Dir().Print(w.drv.Path) + strings.Repeat("!a", 30000))
		},
		"deep archive": func(to *protocol.Writer) {
			to.Op(protocol.OpAddToStore)
			to.AddToStore(protocol.AddToStoreRequest{Name: "x", MethodAlgo: "fixed:r:sha256"})
			var a bytes.Buffer
			nest := wire.NewWriter(&a)
			nest.String("nix-archive-1")
			for range 100000 {
				for _, s := range []string{"(", "type", "directory", "entry", "(", "name", "a", "node"} {
					nest.String(s)
				}
			}
			nest.Flush()
			frames(a.String())(to)
		},
		"many settings": func(to *protocol.Writer) {
			to.Op(protocol.OpSetOptions)
			for range 12 {
				to.Uint64(0)
			}
			to.Uint64(1 << 30)
		},
		"many variables": func(to *protocol.Writer) {
			to.Op(protocol.OpBuildDerivation)
			to.StorePath(w.drv.Path)
			to.Uint64(0)
			to.Uint64(0)
			to.String("x")
			to.String("x")
			to.Uint64(0)
			to.Uint64(wire.MaxCount)
		},
	} {
		if f == nil {
			f = func(to *protocol.Writer) {}
			script := w.script(v, f)
			all[name] = script[:16] + "\xff\xff\xff\xff\xff\xff\xff\x00"
			continue
		}
		all[name] = w.script(v, f)
	}
	return all
}

// TestHostile: whatever a client says, it takes little memory, leaves nothing
// behind in the store, and no goroutine.
func TestHostile(t *testing.T) {
	w := newWorld(t)
	for name, script := range w.hostile() {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			running := runtime.NumGoroutine()
			runtime.ReadMemStats(&before)
			err := w.play(&idleStream{Reader: strings.NewReader(script), Writer: io.Discard})
			runtime.ReadMemStats(&after)
			goroutines(t, running)
			if want := map[string]error{"magic": protocol.ErrMagic, "too old": protocol.ErrClientTooOld}[name]; want != nil && !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20+8*uint64(len(script)) {
				t.Errorf("%d bytes were allocated for a script of %d", used, len(script))
			}
		})
	}
	clean(w)
}

// TestCutOff ends every kind of upload at every so many bytes.
func TestCutOff(t *testing.T) {
	w := newWorld(t)
	for _, v := range []protocol.Version{minor(38), minor(22), minor(20)} {
		script := w.script(v, func(to *protocol.Writer) {
			for _, c := range calls {
				switch c.op {
				case protocol.OpAddToStore, protocol.OpAddToStoreNar, protocol.OpAddMultipleToStore, protocol.OpAddBuildLog:
					if c.op != protocol.OpAddToStoreNar || !v.AtLeast(21) || v.AtLeast(23) {
						to.Op(c.op)
						c.request(w, to)
					}
				}
			}
		})
		for n := 0; n < len(script); n += 37 {
			if err := w.play(&idleStream{Reader: strings.NewReader(script[:n]), Writer: io.Discard}); err != nil {
				t.Fatalf("%v, after %d bytes: %v", v, n, err)
			}
		}
	}
	clean(w)
	if left, _ := filepath.Glob(w.store.LogDir() + "/drvs/*/*.tmp*"); len(left) != 0 {
		t.Error("logs are left: ", left)
	}
}

// FuzzServe plays whatever bytes to a daemon.
func FuzzServe(f *testing.F) {
	w := newWorld(f)
	for _, script := range w.hostile() {
		f.Add([]byte(script))
	}
	for _, n := range []uint8{18, 21, 24, 31, 38} {
		f.Add([]byte(w.script(minor(n), func(to *protocol.Writer) {
			for _, c := range calls {
				if c.pulled == nil {
					to.Op(c.op)
					c.request(w, to)
				}
			}
		})))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		s := &idleStream{Reader: bytes.NewReader(script), Writer: io.Discard}
		if err := w.play(s); err != nil && strings.Contains(err.Error(), "panic") {
			t.Fatal(err)
		}
	})
}

func BenchmarkIsValidPath(b *testing.B) {
	w := newWorld(b)
	p := w.dial(false, minor(38))
	b.ReportAllocs()
	for b.Loop() {
		p.inStep()
	}
}

// echo is a client's side that asks the same again and again, without a socket.
type echo struct {
	request []byte
	left    int
}

func (e *echo) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	e.left--
	return copy(p, e.request), nil
}

func (e *echo) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkPathInfo answers for a path with ten references, without a socket.
func BenchmarkPathInfo(b *testing.B) {
	w := newWorld(b)
	var refs []storepath.Path
	for i := range 10 {
		refs = append(refs, w.addText(fmt.Sprintf("reference-%d", i), "contents").Path)
	}
	p, err := w.store.AddDump(b.Context(), localstore.DumpSpec{
		Name: "referrer", Method: storepath.MethodText, Algo: nixhash.SHA256, References: storepath.SortUnique(refs),
	}, strings.NewReader("contents"), localstore.AddOptions{})
	if err != nil {
		b.Fatal(err)
	}
	var request bytes.Buffer
	out := protocol.NewWriter(wire.NewWriter(&request), w.store.Dir(), protocol.DaemonVersion())
	out.Op(protocol.OpQueryPathInfo)
	out.StorePath(p.Path)
	out.Flush()
	client := &echo{request: request.Bytes(), left: b.N}
	c := &conn{
		o:   Options{Store: w.store, Settings: w.set, Log: zerolog.Nop()},
		in:  protocol.NewReader(wire.NewReader(client), w.store.Dir(), protocol.DaemonVersion()),
		out: protocol.NewWriter(wire.NewWriter(client), w.store.Dir(), protocol.DaemonVersion()), idle: func() {},
	}
	c.tunnel = newTunnel(c.out, activity.Level(c.o.Settings.Verbosity))
	b.ReportAllocs()
	b.ResetTimer()
	if err := c.serve(b.Context()); err != io.EOF {
		b.Fatal(err)
	}
}
