package worker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// world is a store and what plays the rest of a daemon.
type world struct {
	t     testing.TB
	store *localstore.Store
	set   *settings.Settings
	keys  pathinfo.Keys
	log   zerolog.Logger
	ids   activity.IDs
	// audit and jsonLog are the connections'; nil: none.
	audit   func(Privilege)
	jsonLog func() (io.WriteCloser, error)
	// memory is shared by the connections; nil: none is.
	memory wire.Ledger
	// observer is told what the connections do; may be nil.
	observer Observer

	builder     fakeBuilder
	collector   fakeCollector
	substituter fakeSubstituter

	// file is a valid path, drv a valid derivation without a known output.
	file, drv *pathinfo.Info
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { makeDeletable(dir) })
	o := localstore.DefaultOptions()
	o.StoreDir = storepath.Dir(filepath.Join(dir, "store"))
	o.StateDir, o.LogDir = filepath.Join(dir, "var"), filepath.Join(dir, "log")
	o.ReservedSpace = 1 << 12
	o.CADerivations, o.Features.CADerivations = true, true
	store, err := localstore.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	w := &world{t: t, store: store, set: settings.Defaults(settings.Environment{}), log: zerolog.Nop()}
	w.set.ExperimentalFeatures = settings.Features(settings.CADerivations)
	w.file = w.addText("file", "contents")
	w.drv = w.addText("thing.drv", w.aterm("thing"))
	return w
}

// makeDeletable lets a user who is not root remove what a store made.
func makeDeletable(dir string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(path, 0o755)
		}
		return nil
	})
}

func (w *world) addText(name, text string) *pathinfo.Info {
	w.t.Helper()
	info, err := w.store.AddDump(context.Background(), localstore.DumpSpec{
		Name: name, Method: storepath.MethodText, Algo: nixhash.SHA256,
	}, strings.NewReader(text), localstore.AddOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

func (w *world) aterm(name string) string {
	w.t.Helper()
	text, err := (&derivation.Derivation{BasicDerivation: *floating(name)}).ATerm(w.store.Dir())
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

// floating is a derivation with a content-addressed output.
func floating(name string) *derivation.BasicDerivation {
	return &derivation.BasicDerivation{
		Name: name, Platform: "x", Builder: "/bin/sh", Env: map[string]string{"out": ""},
		Outputs: map[string]derivation.Output{
			"out": {Kind: derivation.FloatingCA, Method: storepath.MethodNAR, Algo: nixhash.SHA256},
		},
	}
}

// fixed is a derivation whose output's contents are known beforehand.
func (w *world) fixed(name string) *derivation.BasicDerivation {
	d := floating(name)
	d.Outputs["out"] = derivation.Output{Kind: derivation.FixedCA, CA: storepath.ContentAddress{
		Method: storepath.MethodFlat, Hash: nixhash.Of(nixhash.SHA256, "x"),
	}}
	p, err := d.Outputs["out"].OutputPath(w.store.Dir(), name, "out")
	if err != nil {
		w.t.Fatal(err)
	}
	d.Env["out"] = w.store.Dir().Print(p)
	return d
}

// inputAddressed is a derivation that says itself where its output is.
func inputAddressed(name string) *derivation.BasicDerivation {
	d := floating(name)
	d.Outputs["out"] = derivation.Output{Kind: derivation.InputAddressed, Path: somePath(name)}
	return d
}

// somePath is a path that is not valid.
func somePath(name string) storepath.Path {
	p, err := storepath.New([20]byte([]byte("12345678901234567890")), name)
	if err != nil {
		panic(err)
	}
	return p
}

func archiveOf(contents string) string {
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	if err := errors.Join(w.Create("", false, uint64(len(contents))), second(io.WriteString(w, contents)), w.Close()); err != nil {
		panic(err)
	}
	return b.String()
}

func second[T any](_ T, err error) error { return err }

// infoOf describes a path that holds an archive. It is content-addressed if it
// says so, else nothing vouches for it.
func (w *world) infoOf(name, archive string, ca bool) *pathinfo.Info {
	hash := nixhash.Of(nixhash.SHA256, archive)
	info := &pathinfo.Info{Path: somePath(name)}
	if ca {
		var err error
		info, err = pathinfo.FromCA(w.store.Dir(), name, storepath.ContentAddress{Method: storepath.MethodNAR, Hash: hash}, storepath.References{})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	info.NarHash, info.NarSize = hash, uint64(len(archive))
	return info
}

func (w *world) valid(p storepath.Path) bool {
	w.t.Helper()
	valid, err := w.store.IsValid(context.Background(), p)
	if err != nil {
		w.t.Fatal(err)
	}
	return valid
}

// peer is a client that says whatever a test wants it to.
type peer struct {
	t    testing.TB
	w    *world
	conn *net.UnixConn
	in   *protocol.Reader
	out  *protocol.Writer
	// served is what Serve returned, once.
	served chan error
	cancel context.CancelFunc
	log    recorder
}

func socketPair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = conn.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

// start serves a connection without saying anything on it.
func (w *world) start(trusted bool) *peer {
	w.t.Helper()
	mine, theirs := socketPair(w.t)
	mine.SetDeadline(time.Now().Add(30 * time.Second)) // a hang becomes a failure
	ctx, cancel := context.WithCancel(context.Background())
	p := &peer{t: w.t, w: w, conn: mine, served: make(chan error, 1), cancel: cancel}
	go func() {
		defer theirs.Close()
		p.served <- Serve(ctx, theirs, Options{
			Store: w.store, Builder: &w.builder, Collector: &w.collector, Substituter: &w.substituter,
			Roots: w.store.NewTempRoots(), RequireSigs: true, Keys: func(*settings.Settings) pathinfo.Keys { return w.keys },
			NixVersion: "2.34.8", Settings: w.set, IDs: &w.ids, User: "somebody", Client: 1, Trusted: trusted, Memory: w.memory, Log: w.log,
			Observer: w.observer,
			Audit:    w.audit, JSONLog: w.jsonLog,
		})
	}()
	w.t.Cleanup(func() {
		cancel()
		mine.Close()
		<-p.served
	})
	return p
}

// end hangs up and gives what Serve returned.
func (p *peer) end() error {
	p.t.Helper()
	p.conn.Close()
	err := <-p.served
	p.served <- err // for the clean-up
	return err
}

// dial logs in with a version.
func (w *world) dial(trusted bool, version protocol.Version) *peer {
	w.t.Helper()
	p := w.start(trusted)
	var err error
	p.in, p.out, _, err = protocol.ClientHandshake(wire.NewReader(p.conn), wire.NewWriter(p.conn), w.store.Dir(), version)
	if err != nil {
		w.t.Fatal(err)
	}
	p.in.Features = derivation.Features{CADerivations: true}
	p.mustWork()
	return p
}

func minor(n uint8) protocol.Version { return protocol.Version{Number: protocol.Minor(n)} }

// send writes a request.
func (p *peer) send(op protocol.Op, fields func(*protocol.Writer)) {
	p.t.Helper()
	p.out.Op(op)
	if fields != nil {
		fields(p.out)
	}
	p.flush()
}

func (p *peer) flush() {
	p.t.Helper()
	if err := p.out.Flush(); err != nil {
		p.t.Fatal(err)
	}
}

// frames is framed data in pieces.
func frames(pieces ...string) func(*protocol.Writer) {
	return func(w *protocol.Writer) {
		for _, piece := range pieces {
			w.Uint64(uint64(len(piece)))
			w.WriteString(piece)
		}
		w.Uint64(0)
	}
}

// finish follows the frames up to the end of work, answering those that ask
// for data, and gives the error if that was the end.
func (p *peer) finish(data io.Reader) *protocol.Error {
	p.t.Helper()
	for {
		p.in.StartRequest()
		tag, err := p.in.Frame()
		if err != nil {
			p.t.Fatal("read frame: ", err)
		}
		switch tag {
		case protocol.FrameLast:
			return nil
		case protocol.FrameError:
			e, err := p.in.Error()
			if err != nil {
				p.t.Fatal("read error: ", err)
			}
			return e
		case protocol.FrameRead:
			p.answer(data)
		case protocol.FrameWrite:
			b, err := p.in.Bytes(wire.MaxString)
			if err != nil {
				p.t.Fatal(err)
			}
			p.log.data.Write(b)
		default:
			if known, err := p.in.Tell(tag, &p.log); err != nil || !known {
				p.t.Fatalf("frame %x: %v", tag, err)
			}
		}
	}
}

func (p *peer) answer(data io.Reader) {
	p.t.Helper()
	most, err := p.in.Uint64()
	if err != nil || data == nil {
		p.t.Fatal("asked for data: ", err)
	}
	b := make([]byte, most)
	n, _ := data.Read(b)
	p.out.Bytes(b[:n])
	p.flush()
}

func (p *peer) mustWork() {
	p.t.Helper()
	if e := p.finish(nil); e != nil {
		p.t.Fatal("refused: ", e.Message)
	}
}

// mustFail wants an error with this text, colours aside.
func (p *peer) mustFail(text string) *protocol.Error {
	p.t.Helper()
	e := p.finish(nil)
	if e == nil {
		p.t.Fatal("was not refused")
	}
	if got := plainText(e.Message); got != text {
		p.t.Fatalf("got error:\n%q\nwant:\n%q", got, text)
	}
	return e
}

func plainText(s string) string {
	for _, escape := range []string{magenta, red, normal} {
		s = strings.ReplaceAll(s, escape, "")
	}
	return s
}

// inStep shows that the stream is where it should be.
func (p *peer) inStep() {
	p.t.Helper()
	p.send(protocol.OpIsValidPath, func(w *protocol.Writer) { w.StorePath(p.w.file.Path) })
	p.mustWork()
	if valid, err := p.in.Bool(); err != nil || !valid {
		p.t.Fatal("out of step: ", valid, err)
	}
	if n := p.in.Buffered(); n != 0 {
		p.t.Fatal("bytes left over: ", n)
	}
}

// mustEnd wants so many more errors with this text, then the end of the
// connection, for which the client is to blame.
func (p *peer) mustEnd(errors int, text string) {
	p.t.Helper()
	for range errors {
		p.mustFail(text)
	}
	if b, err := p.in.Peek(1); err != io.EOF && !isGone(err) {
		p.t.Fatalf("connection goes on: %q, %v", b, err)
	}
	if err := p.end(); err != nil {
		p.t.Fatal("Serve: ", err)
	}
}

// recorder writes down what a client is told.
type recorder struct {
	mu    sync.Mutex
	lines []string
	kinds []activity.Type
	stops int
	data  bytes.Buffer
}

func (r *recorder) Message(_ activity.Level, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, plainText(text))
}

func (r *recorder) Start(_ activity.ID, _ activity.Level, kind activity.Type, _ string, _ []activity.Field, _ activity.ID) {
	r.kinds = append(r.kinds, kind)
}

func (r *recorder) Stop(activity.ID) { r.stops++ }

func (r *recorder) Result(activity.ID, activity.ResultType, []activity.Field) {}

// fakeBuilder does what a test says, and remembers what it was asked.
type fakeBuilder struct {
	mu    sync.Mutex
	calls []string
	do    func(ctx context.Context, sess *session.Session) error

	drvPath storepath.Path
	drv     *derivation.BasicDerivation
	missing protocol.Missing
	outputs map[string]storepath.Path
}

func (b *fakeBuilder) call(ctx context.Context, sess *session.Session, name string) error {
	b.mu.Lock()
	b.calls = append(b.calls, name)
	do := b.do
	b.mu.Unlock()
	if do != nil {
		return do(ctx, sess)
	}
	return nil
}

func (b *fakeBuilder) BuildPaths(ctx context.Context, sess *session.Session, _ []derivation.DerivedPath, _ derivation.BuildMode) error {
	return b.call(ctx, sess, "build")
}

func (b *fakeBuilder) BuildPathsWithResults(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath, _ derivation.BuildMode) ([]derivation.KeyedBuildResult, error) {
	var results []derivation.KeyedBuildResult
	for _, p := range paths {
		results = append(results, derivation.KeyedBuildResult{Path: p})
	}
	return results, b.call(ctx, sess, "results")
}

func (b *fakeBuilder) BuildDerivation(ctx context.Context, sess *session.Session, drvPath storepath.Path, drv *derivation.BasicDerivation, _ derivation.BuildMode) (derivation.BuildResult, error) {
	b.drvPath, b.drv = drvPath, drv
	return derivation.BuildResult{}, b.call(ctx, sess, "derivation")
}

func (b *fakeBuilder) EnsurePath(ctx context.Context, sess *session.Session, _ storepath.Path) error {
	return b.call(ctx, sess, "ensure")
}

func (b *fakeBuilder) RepairPath(ctx context.Context, sess *session.Session, _ storepath.Path) error {
	return b.call(ctx, sess, "repair")
}

func (b *fakeBuilder) QueryMissing(context.Context, *session.Session, []derivation.DerivedPath) (protocol.Missing, error) {
	return b.missing, nil
}

func (b *fakeBuilder) OutputMap(context.Context, storepath.Path) (map[string]storepath.Path, error) {
	return b.outputs, nil
}

// fakeCollector has one root.
type fakeCollector struct {
	censored []bool
	requests []protocol.GCRequest
	// keeps are keep-outputs and keep-derivations of each request.
	keeps [][2]bool
}

func (c *fakeCollector) FindRoots(_ context.Context, _ *session.Session, censor bool) ([]protocol.Root, error) {
	c.censored = append(c.censored, censor)
	return []protocol.Root{{Link: "/link", Target: somePath("root")}}, nil
}

func (c *fakeCollector) Collect(_ context.Context, sess *session.Session, req protocol.GCRequest) (protocol.GCResults, error) {
	c.requests = append(c.requests, req)
	c.keeps = append(c.keeps, [2]bool{sess.Settings.KeepOutputs, sess.Settings.KeepDerivations})
	return protocol.GCResults{Paths: []string{"/a"}, BytesFreed: 7}, nil
}

// fakeSubstituter has what it is told to have.
type fakeSubstituter struct{ paths []storepath.Path }

func (s *fakeSubstituter) SubstitutableInfos(_ context.Context, _ *session.Session, paths map[storepath.Path]storepath.ContentAddress) ([]protocol.SubstitutableInfo, error) {
	var infos []protocol.SubstitutableInfo
	for _, p := range slices.Backward(s.paths) {
		if _, asked := paths[p]; asked {
			infos = append(infos, protocol.SubstitutableInfo{Path: p, NarSize: 1})
		}
	}
	return infos, nil
}

func (s *fakeSubstituter) SubstitutablePaths(_ context.Context, _ *session.Session, paths []storepath.Path) ([]storepath.Path, error) {
	return slices.DeleteFunc(slices.Clone(paths), func(p storepath.Path) bool { return !slices.Contains(s.paths, p) }), nil
}

// goroutines waits until no more than so many are left.
func goroutines(t testing.TB, most int) {
	t.Helper()
	for range 1000 {
		if runtime.NumGoroutine() <= most {
			return
		}
		runtime.Gosched()
		runtime.GC()
	}
	stacks := make([]byte, 1<<20)
	t.Fatalf("%d goroutines, want at most %d:\n%s", runtime.NumGoroutine(), most, stacks[:runtime.Stack(stacks, true)])
}
