package forward_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/forward"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/workertest"
)

// peer is an inner daemon that a test scripts.
type peer struct {
	trust  protocol.Trust
	handle func(ctx context.Context, r *protocol.Reader, w *protocol.Writer, op protocol.Op) error
	opened atomic.Int32
	closed chan struct{} // receives when a connection ends; nil if nobody asks
}

func (p *peer) listen(t testing.TB) string {
	return workertest.Listen(t, func(ctx context.Context, conn net.Conn) {
		p.opened.Add(1)
		p.serve(ctx, conn)
		if p.closed != nil {
			p.closed <- struct{}{}
		}
	})
}

func (p *peer) serve(ctx context.Context, conn net.Conn) error {
	r, w, err := protocol.ServerHandshake(wire.NewReader(conn), wire.NewWriter(conn), storepath.DefaultDir, protocol.DaemonVersion(),
		protocol.ServerInfo{NixVersion: "2.34.8", Trust: p.trust})
	if err != nil {
		return err
	}
	w.Frame(protocol.FrameLast)
	for {
		if err := w.Flush(); err != nil {
			return err
		}
		op, err := r.Op()
		if err == nil {
			err = p.handle(ctx, r, w, op)
		}
		if err != nil {
			return err
		}
	}
}

// answer serves validity queries and takes settings.
func answer(got chan<- protocol.ClientOptions) func(context.Context, *protocol.Reader, *protocol.Writer, protocol.Op) error {
	return func(_ context.Context, r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
		if op == protocol.OpSetOptions {
			o, err := r.Options()
			if got != nil {
				got <- o
			}
			w.Frame(protocol.FrameLast)
			return err
		}
		_, err := r.StorePath()
		w.Frame(protocol.FrameLast)
		w.Bool(true)
		return err
	}
}

var somePath = func() storepath.Path {
	p, err := storepath.ParseBase("g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-a")
	if err != nil {
		panic(err)
	}
	return p
}()

func TestTrust(t *testing.T) {
	for _, tt := range []struct {
		name      string
		inner     protocol.Trust
		untrusted bool
		want      protocol.Trust
	}{
		{"trusted by both", protocol.Trusted, false, protocol.Trusted},
		{"not trusted there", protocol.NotTrusted, false, protocol.NotTrusted},
		{"unknown there", protocol.TrustUnknown, false, protocol.TrustUnknown},
		{"not trusted here", protocol.Trusted, true, protocol.NotTrusted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &peer{trust: tt.inner, handle: answer(nil)}
			c := connect(t, outer{socket: p.listen(t), untrusted: tt.untrusted}.serve(t), "", 0, nil)
			info, err := c.Server(t.Context())
			if err != nil || info.Trust != tt.want {
				t.Errorf("got %v, %v, want %v", info.Trust, err, tt.want)
			}
		})
	}
}

// TestUntrustedIsStopped checks that our trust counts, though the other daemon
// trusts us.
func TestUntrustedIsStopped(t *testing.T) {
	d := workertest.New(t)
	c := connect(t, outer{socket: d.Listen(t), dir: d.Store.Dir(), untrusted: true}.serve(t), d.Store.Dir(), 0, nil)
	if _, err := c.Verify(t.Context(), false, true); message(err) != "you are not privileged to repair paths" {
		t.Errorf("repair: %v", err)
	}
	drv := &derivation.BasicDerivation{Name: "x", Platform: "x86_64-linux", Builder: "/bin/sh",
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.InputAddressed, Path: somePath}}}
	p, err := storepath.ParseBase(somePath.Base() + ".drv")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.BuildDerivation(t.Context(), protocol.BuildDerivationRequest{DrvPath: p, Derivation: drv})
	if message(err) != "you are not privileged to build input-addressed derivations" {
		t.Errorf("build: %v", err)
	}
	info := &pathinfo.Info{Path: somePath, NarHash: nixhash.Of(nixhash.SHA256, string(nartest.File("x"))), NarSize: uint64(len(nartest.File("x"))), Ultimate: true}
	if err := c.AddNAR(t.Context(), protocol.AddToStoreNarRequest{Info: info, DontCheckSigs: true}, bytes.NewReader(nartest.File("x"))); err != nil {
		t.Fatal(err) // the test's store wants no signatures
	}
	if got, err := c.PathInfo(t.Context(), somePath); err != nil || got.Ultimate {
		t.Errorf("an untrusted client's path is ultimate: %+v, %v", got, err)
	}
}

// TestSettings checks what is forwarded: the client's wishes as far as it may
// have them, before the next request.
func TestSettings(t *testing.T) {
	for _, untrusted := range []bool{false, true} {
		got := make(chan protocol.ClientOptions, 4)
		p := &peer{trust: protocol.Trusted, handle: answer(got)}
		own := workertest.Settings()
		own.TrustedSubstituters = []string{"https://good.example"}
		c := connect(t, outer{socket: p.listen(t), untrusted: untrusted, settings: own}.serve(t), "", 0, nil)
		c.SetSettings(&protocol.ClientOptions{KeepGoing: true, MaxJobs: 7, Cores: 3, Verbosity: 5, BuildVerbosity: 1, Overrides: []protocol.Override{
			{Name: "timeout", Value: "9"}, {Name: "sandbox", Value: "false"}, {Name: "substituters", Value: "https://good.example https://bad.example"},
		}})
		for range 2 {
			if _, err := c.IsValid(t.Context(), somePath); err != nil {
				t.Fatal(err)
			}
		}
		o := <-got
		if !o.KeepGoing || o.MaxJobs != 7 || o.Cores != 3 || o.Verbosity != 5 || o.BuildVerbosity != uint64(settings.LevelVomit) {
			t.Errorf("untrusted %v: got %+v", untrusted, o)
		}
		has := func(name, value string) bool {
			return slices.Contains(o.Overrides, protocol.Override{Name: name, Value: value})
		}
		if !has("timeout", "9") || has("sandbox", "false") == untrusted {
			t.Errorf("untrusted %v: got overrides %v", untrusted, o.Overrides)
		}
		if want := "https://good.example"; untrusted && !has("substituters", want) || !untrusted && !has("substituters", want+" https://bad.example") {
			t.Errorf("untrusted %v: got overrides %v", untrusted, o.Overrides)
		}
		if len(got) > 0 {
			t.Error("the same settings were sent twice")
		}
	}
}

// TestConnectionsAreOfTheirOwn gives each client its own connection.
func TestConnectionsAreOfTheirOwn(t *testing.T) {
	p := &peer{handle: answer(nil), closed: make(chan struct{}, 8)}
	socket := outer{socket: p.listen(t)}.serve(t)
	for range 2 {
		c := connect(t, socket, "", 0, nil)
		for range 3 {
			if _, err := c.IsValid(t.Context(), somePath); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		<-p.closed
	}
	if n := p.opened.Load(); n != 2 {
		t.Errorf("opened %d connections for 2 clients", n)
	}
}

// TestLog passes on what the other daemon says while it works.
func TestLog(t *testing.T) {
	d := workertest.New(t)
	var log recorder
	c := connect(t, outer{socket: d.Listen(t), dir: d.Store.Dir()}.serve(t), d.Store.Dir(), 0, &log)
	tr := &trip{TB: t, ctx: t.Context(), c: c, dir: d.Store.Dir(), tag: "log"}
	drv, _ := tr.drv("talker", "echo line one; echo line two >&2; echo > $out")
	tr.must("build", c.BuildPaths(t.Context(), outputs(drv), derivation.BuildNormal))
	for _, line := range []string{"line one", "line two"} {
		if !slices.Contains(log.results, line) {
			t.Errorf("%q is missing from the log %q", line, log.results)
		}
	}
}

// TestHangUp closes the inner connection in the middle of a request when the
// client goes away.
func TestHangUp(t *testing.T) {
	begun := make(chan struct{})
	p := &peer{closed: make(chan struct{}, 1)}
	p.handle = func(ctx context.Context, r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
		if op != protocol.OpEnsurePath {
			return answer(nil)(ctx, r, w, op)
		}
		r.StorePath()
		close(begun)
		for { // until the peer is gone
			w.LogLine("working\n")
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	c := connect(t, outer{socket: p.listen(t)}.serve(t), "", 0, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	if err := c.EnsurePath(ctx, somePath); err == nil {
		t.Error("a cancelled request succeeded")
	}
	select {
	case <-p.closed:
	case <-time.After(time.Minute):
		t.Fatal("the inner connection outlived the client")
	}
}

// TestReopens connects again when the daemon was restarted in between.
func TestReopens(t *testing.T) {
	hangUp := make(chan struct{}, 1)
	p := &peer{closed: make(chan struct{}, 8)}
	p.handle = func(ctx context.Context, r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
		if op == protocol.OpAddToStore {
			if _, err := r.AddToStore(); err != nil {
				return err
			}
			_, err := io.Copy(io.Discard, r.Framed())
			w.Frame(protocol.FrameLast)
			w.Info(&pathinfo.Info{Path: somePath, NarHash: nixhash.Of(nixhash.SHA256, "")})
			return err
		}
		err := answer(nil)(ctx, r, w, op)
		if op != protocol.OpSetOptions {
			w.Flush()
			select {
			case <-hangUp:
				return errDone
			default:
			}
		}
		return err
	}
	c := connect(t, outer{socket: p.listen(t)}.serve(t), "", 0, nil)
	ask := func() {
		t.Helper()
		if valid, err := c.IsValid(t.Context(), somePath); err != nil || !valid {
			t.Fatalf("IsValid: %v, %v", valid, err)
		}
	}
	hangUp <- struct{}{}
	ask()
	<-p.closed
	ask()
	if n := p.opened.Load(); n != 2 {
		t.Errorf("opened %d connections, want 2", n)
	}
	hangUp <- struct{}{}
	ask()
	<-p.closed
	_, err := c.AddToStore(t.Context(), protocol.AddToStoreRequest{Name: "x", MethodAlgo: "fixed:sha256"}, strings.NewReader("data"))
	if n := p.opened.Load(); err != nil || n != 3 {
		t.Errorf("upload after a restart: %d connections, %v", n, err)
	}
}

// TestNoDaemon tells the client why, with every request.
func TestNoDaemon(t *testing.T) {
	c := connect(t, outer{socket: "/does/not/exist"}.serve(t), "", 0, nil)
	for range 2 {
		_, err := c.IsValid(t.Context(), somePath)
		if got := message(err); got != "cannot connect to socket at '/does/not/exist': No such file or directory" {
			t.Errorf("got %q", got)
		}
	}
	junk := workertest.Listen(t, func(_ context.Context, conn net.Conn) {
		io.ReadFull(conn, make([]byte, 16))
		conn.Write(make([]byte, 8))
	})
	c = connect(t, outer{socket: junk}.serve(t), "", 0, nil)
	_, err := c.IsValid(t.Context(), somePath)
	if got := message(err); got != "cannot open connection to remote store 'unix://"+junk+"': error: nix-daemon protocol mismatch from" {
		t.Errorf("got %q", got)
	}
}

// TestCensor hides processes from untrusted clients, though the other daemon
// shows them to us.
func TestCensor(t *testing.T) {
	p := &peer{trust: protocol.Trusted, handle: func(ctx context.Context, r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
		if op != protocol.OpFindRoots {
			return answer(nil)(ctx, r, w, op)
		}
		w.Frame(protocol.FrameLast)
		w.Roots([]protocol.Root{
			{Link: "/home/a/result", Target: somePath}, {Link: "/proc/1/maps", Target: somePath},
			{Link: "/proc/2/exe", Target: somePath}, {Link: "{temp:7}", Target: somePath},
		})
		return nil
	}}
	socket := p.listen(t)
	for untrusted, want := range map[bool]int{false: 4, true: 2} {
		roots, err := connect(t, outer{socket: socket, untrusted: untrusted}.serve(t), "", 0, nil).Roots(t.Context())
		if err != nil || len(roots) != want {
			t.Errorf("untrusted %v: %v, %v", untrusted, roots, err)
		}
		if untrusted && roots[1].Link != "{censored}" {
			t.Errorf("got %v", roots)
		}
	}
}

// TestNarrowGC does not let a confined collection become one of the whole
// store at a daemon that cannot confine it.
func TestNarrowGC(t *testing.T) {
	d := workertest.New(t)
	c := connect(t, outer{socket: d.Listen(t), dir: d.Store.Dir(), version: 37}.serve(t), d.Store.Dir(), 0, nil)
	for _, req := range []protocol.GCRequest{
		{Action: protocol.GCDeleteDead}, {Action: protocol.GCDeleteDead, Paths: []storepath.Path{somePath}},
		{Action: protocol.GCDeleteSpecific, Paths: []storepath.Path{somePath}, DeleteReferrers: true},
	} {
		_, err := c.CollectGarbage(t.Context(), req)
		if !strings.HasPrefix(message(err), "Garbage collecting specific paths requested") {
			t.Errorf("%+v: %v", req, err)
		}
	}
}

// bigNAR writes an archive of n bytes of contents, out of nothing.
func bigNAR(n int64) io.Reader {
	r, w := io.Pipe()
	go func() {
		archive := nar.NewWriter(w)
		err := archive.Regular("", false, uint64(n), zeros(n))
		if err == nil {
			err = archive.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}

// TestStreams sends far more through than it may hold, to a daemon that talks
// more than any buffer holds before it listens.
func TestStreams(t *testing.T) {
	const size = 256 << 20
	var taken atomic.Int64
	p := &peer{trust: protocol.Trusted, handle: func(ctx context.Context, r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
		switch op {
		case protocol.OpAddToStoreNar:
			if _, err := r.AddToStoreNar(); err != nil {
				return err
			}
			for range 4096 {
				w.LogLine(strings.Repeat("talk ", 200) + "\n")
			}
			if err := w.Flush(); err != nil {
				return err
			}
			n, err := io.Copy(io.Discard, r.Framed())
			taken.Store(n)
			w.Frame(protocol.FrameLast)
			return err
		case protocol.OpQueryPathInfo:
			r.StorePath()
			w.Frame(protocol.FrameLast)
			w.Bool(true)
			w.InfoOf(&pathinfo.Info{Path: somePath, NarHash: nixhash.Of(nixhash.SHA256, "")})
			return nil
		case protocol.OpNarFromPath:
			r.StorePath()
			w.Frame(protocol.FrameLast)
			_, err := io.Copy(w, bigNAR(size))
			return err
		}
		return answer(nil)(ctx, r, w, op)
	}}
	c := connect(t, outer{socket: p.listen(t)}.serve(t), "", 0, nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	info := &pathinfo.Info{Path: somePath, NarHash: nixhash.Of(nixhash.SHA256, "")}
	if err := c.AddNAR(t.Context(), protocol.AddToStoreNarRequest{Info: info}, bigNAR(size)); err != nil || taken.Load() <= size {
		t.Errorf("sent %d bytes, %v", taken.Load(), err)
	}
	n, err := countDump(t.Context(), c.Dump)
	if err != nil || n <= size {
		t.Errorf("received %d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > size/4 {
		t.Errorf("%d MiB were allocated for %d MiB", used>>20, 2*size>>20)
	}
}

// TestDump asks for an archive, and for no more unless that turns out to be none: upstream's daemons send their errors in
// its place, and hang up.
func TestDump(t *testing.T) {
	for _, tt := range []struct {
		name, archive string
		valid         bool
		elsewhere     bool
		want          string
		asked         []protocol.Op
	}{
		{name: "valid", archive: string(nartest.File("x")), valid: true, asked: []protocol.Op{protocol.OpNarFromPath}},
		{name: "not valid", want: "path '" + storepath.DefaultDir.Print(somePath) + "' is not a valid store path",
			asked: []protocol.Op{protocol.OpNarFromPath, protocol.OpIsValidPath}},
		{name: "not valid elsewhere", elsewhere: true, want: "input doesn't look like a Nix archive", asked: []protocol.Op{protocol.OpNarFromPath}},
		{name: "refused", valid: true, want: "input doesn't look like a Nix archive", asked: []protocol.Op{protocol.OpNarFromPath, protocol.OpIsValidPath}},
		{name: "damaged", archive: string(nartest.File(strings.Repeat("x", 1<<20))[:1<<19]), want: client.ErrDisconnected.Error(),
			asked: []protocol.Op{protocol.OpNarFromPath}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := make(chan protocol.Op, 10)
			p := &peer{handle: func(ctx context.Context, r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
				asked <- op
				if _, err := r.StorePath(); err != nil {
					return err
				}
				w.Frame(protocol.FrameLast)
				switch {
				case op == protocol.OpIsValidPath:
					w.Bool(tt.valid)
					return nil
				case tt.archive == "":
					w.Frame(protocol.FrameError)
					w.Error(&protocol.Error{Message: "no such file"})
				default:
					io.WriteString(w, tt.archive)
				}
				if tt.want != "" {
					return errors.Join(w.Flush(), io.EOF)
				}
				return nil
			}}
			b := forward.New(forward.Options{Dial: client.Unix(p.listen(t)), Settings: workertest.Settings(), Elsewhere: tt.elsewhere})
			defer b.Close()
			var got bytes.Buffer
			err := b.Dump(t.Context(), somePath, &got)
			if tt.want == "" && (err != nil || got.String() != tt.archive) || tt.want != "" && !strings.Contains(message(err), tt.want) {
				t.Errorf("%d bytes, error %q, want %q", got.Len(), message(err), tt.want)
			}
			close(asked)
			var ops []protocol.Op
			for op := range asked {
				ops = append(ops, op)
			}
			if !slices.Equal(ops, tt.asked) {
				t.Errorf("asked %v, want %v", ops, tt.asked)
			}
		})
	}
}

func countDump(ctx context.Context, dump func(context.Context, storepath.Path, io.Writer) error) (int64, error) {
	var n counter
	err := dump(ctx, somePath, &n)
	return int64(n), err
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// TestBrokenUpload does not let a daemon take the beginning of a file for the
// whole.
func TestBrokenUpload(t *testing.T) {
	ended := make(chan error, 1)
	p := &peer{handle: func(ctx context.Context, r *protocol.Reader, w *protocol.Writer, op protocol.Op) error {
		if op != protocol.OpAddToStore {
			return answer(nil)(ctx, r, w, op)
		}
		if _, err := r.AddToStore(); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, r.Framed())
		ended <- err
		return err
	}}
	socket := outer{socket: p.listen(t)}.serve(t)
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	r, w, _, err := protocol.ClientHandshake(wire.NewReader(conn), wire.NewWriter(conn), storepath.DefaultDir, protocol.ClientVersion())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Frame(); err != nil {
		t.Fatal(err)
	}
	w.Op(protocol.OpAddToStore)
	w.AddToStore(protocol.AddToStoreRequest{Name: "x", MethodAlgo: "fixed:sha256"})
	w.Uint64(5) // a frame's length
	w.Write([]byte("begin"))
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("half a file arrived as a whole one")
		}
	case <-time.After(time.Minute):
		t.Fatal("the upload never ended")
	}
}
