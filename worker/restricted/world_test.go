package restricted_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"nixdaemon/localstore"
	"nixdaemon/localstore/localstoretest"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/protocoltest"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/restricted"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// fakeBuild is a build that a test decides about. It builds nothing but what it is told that there is.
type fakeBuild struct {
	submits bool
	inputs  []storepath.Path
	sess    *session.Session
	result  derivation.BuildResult

	mu        sync.Mutex
	added     []storepath.Path
	outputs   []pathinfo.DrvOutput
	built     []derivation.DerivedPath
	submitted []string
}

var _ restricted.Build = (*fakeBuild)(nil)

func (b *fakeBuild) Submits() bool             { return b.submits }
func (b *fakeBuild) Log() activity.Sink        { return b.sess.Log }
func (b *fakeBuild) Inputs() []storepath.Path  { return b.inputs }
func (b *fakeBuild) Session() *session.Session { return b.sess }

func (b *fakeBuild) Paths() []storepath.Path {
	b.mu.Lock()
	defer b.mu.Unlock()
	return storepath.SortUnique(append(b.added[:len(b.added):len(b.added)], b.inputs...))
}

func (b *fakeBuild) MayUse(p storepath.Path) bool { return storepath.Contains(b.Paths(), p) }

func (b *fakeBuild) Add(_ context.Context, paths ...storepath.Path) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.added = append(b.added, paths...)
	return nil
}

func (b *fakeBuild) KnowsOutput(id pathinfo.DrvOutput) bool {
	for _, known := range b.outputs {
		if known == id {
			return true
		}
	}
	return false
}

// NewRefScanner finds whole names.
func (b *fakeBuild) NewRefScanner() localstore.RefScanner { return &names{of: b.Paths()} }

type names struct {
	of   []storepath.Path
	seen bytes.Buffer
}

func (n *names) Write(p []byte) (int, error) { return n.seen.Write(p) }

func (n *names) References() []storepath.Path {
	var refs []storepath.Path
	for _, p := range n.of {
		if strings.Contains(n.seen.String(), p.Base()) {
			refs = append(refs, p)
		}
	}
	return refs
}

func (b *fakeBuild) Submit(p *derivation.SingleDerivedPath, output string) error {
	b.submitted = append(b.submitted, p.Path.Base()+" "+output)
	return nil
}

func (b *fakeBuild) BuildPathsWithResults(_ context.Context, paths []derivation.DerivedPath) ([]derivation.KeyedBuildResult, error) {
	b.built = append(b.built, paths...)
	var results []derivation.KeyedBuildResult
	for _, p := range paths {
		results = append(results, derivation.KeyedBuildResult{Path: p, BuildResult: b.result})
	}
	return results, nil
}

func (b *fakeBuild) QueryMissing(_ context.Context, paths []derivation.DerivedPath) (protocol.Missing, error) {
	var m protocol.Missing
	for _, p := range paths {
		m.WillBuild = append(m.WillBuild, p.Base())
	}
	return m, nil
}

func (b *fakeBuild) OutputMap(context.Context, storepath.Path) (map[string]storepath.Path, error) {
	return map[string]storepath.Path{"out": {}}, nil
}

// sink counts what is told to those who wait for the build.
type sink struct {
	activity.Discard
	mu sync.Mutex
	n  int
}

func (s *sink) Message(activity.Level, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
}

// world is a store with something in it, and a builder that sees a part.
type world struct {
	*testing.T
	ctx    context.Context
	store  *localstore.Store
	build  *fakeBuild
	client *client.Client
	set    *settings.Settings

	input, dep, secret *pathinfo.Info // seen, seen since input refers to it, and not seen
	drv                *pathinfo.Info // a derivation, seen
	done               sync.WaitGroup
}

func newWorld(t *testing.T, change ...func(*world)) *world {
	t.Helper()
	w := &world{T: t, ctx: context.Background(), set: settings.Defaults(settings.Environment{})}
	w.set.ExperimentalFeatures = settings.Features(settings.CADerivations, settings.DynamicDerivations)
	w.store = localstoretest.New(t, func(o *localstore.Options) {
		o.CADerivations, o.Features = true, derivation.AllFeatures()
	})
	w.dep = w.text("dep", "a dependency")
	w.input = w.text("input", "an input", w.dep.Path)
	w.secret = w.text("secret", "what the builder must not see")
	w.drv = w.text("seen.drv", w.derivation("seen"))
	roots := w.store.NewTempRoots()
	t.Cleanup(func() { roots.Close() })
	w.build = &fakeBuild{
		inputs: storepath.SortUnique([]storepath.Path{w.dep.Path, w.input.Path, w.drv.Path}),
		sess:   &session.Session{User: "alice", Client: 7, Settings: w.set, Log: &sink{}, Roots: roots},
	}
	for _, f := range change {
		f(w)
	}
	w.Cleanup(w.done.Wait)
	w.client = w.connect(protocol.ClientVersion())
	return w
}

// connect makes a client of a builder.
func (w *world) connect(version protocol.Version) *client.Client {
	c := client.New(client.Options{Dial: w.dial, Dir: w.store.Dir(), Version: version, Features: derivation.AllFeatures()})
	w.Cleanup(func() { c.Close() })
	return c
}

func (w *world) dial(context.Context) (io.ReadWriteCloser, error) {
	mine, theirs := protocoltest.Pipe(w.T)
	w.done.Go(func() {
		defer theirs.Close()
		if err := w.serve(theirs); err != nil {
			w.Error("Serve: ", err)
		}
	})
	return mine, nil
}

func (w *world) serve(conn net.Conn) error {
	s := restricted.New(w.store, w.build)
	return worker.Serve(w.ctx, conn, worker.Options{
		Store: s, Builder: s, Collector: s, Roots: s, Nested: s, RequireSigs: true,
		Keys: func(*settings.Settings) pathinfo.Keys { return pathinfo.Keys{} }, NixVersion: "2.34.8", Settings: w.set,
		IDs: new(activity.IDs), User: "alice", Client: 7, Log: zerolog.Nop(),
	})
}

func (w *world) text(name, text string, refs ...storepath.Path) *pathinfo.Info {
	w.Helper()
	info, err := w.store.AddDump(w.ctx, localstore.DumpSpec{Name: name, Method: storepath.MethodText, Algo: nixhash.SHA256,
		References: refs}, strings.NewReader(text), localstore.AddOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return info
}

// derivation is the text of one with these sources.
func (w *world) derivation(name string, srcs ...storepath.Path) string {
	w.Helper()
	d := &derivation.Derivation{BasicDerivation: derivation.BasicDerivation{
		Name: name, Platform: "x", Builder: "/bin/sh", Env: map[string]string{"out": ""}, InputSrcs: srcs,
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.FloatingCA, Method: storepath.MethodNAR, Algo: nixhash.SHA256}},
	}}
	text, err := d.ATerm(w.store.Dir())
	if err != nil {
		w.Fatal(err)
	}
	return text
}

func (w *world) print(p storepath.Path) string { return w.store.Dir().Print(p) }

// archive is that of a file, with metadata that content-address it.
func (w *world) archive(name, contents string, refs ...storepath.Path) (*pathinfo.Info, string) {
	w.Helper()
	var b bytes.Buffer
	a := nar.NewWriter(&b)
	err := a.Create("", false, uint64(len(contents)))
	if err == nil {
		_, err = io.WriteString(a, contents)
	}
	if err = errors.Join(err, a.Close()); err != nil {
		w.Fatal(err)
	}
	hash := nixhash.Of(nixhash.SHA256, b.String())
	info, err := pathinfo.FromCA(w.store.Dir(), name, storepath.ContentAddress{Method: storepath.MethodNAR, Hash: hash},
		storepath.References{Others: refs})
	if err != nil {
		w.Fatal(err)
	}
	info.NarHash, info.NarSize = hash, uint64(b.Len())
	return info, b.String()
}

// refused wants an error with this text, colours aside.
func (w *world) refused(err error, want string) {
	w.Helper()
	if err == nil {
		w.Errorf("was not refused, want %s", want)
		return
	}
	var remote *protocol.Error
	text := err.Error()
	if errors.As(err, &remote) {
		text = remote.Message
	}
	if text = strings.NewReplacer("\x1b[35;1m", "", "\x1b[31;1m", "", "\x1b[0m", "").Replace(text); text != want {
		w.Errorf("got error:\n%s\nwant:\n%s", text, want)
	}
}

var addOptions localstore.AddOptions

func (w *world) inode(p storepath.Path) uint64 {
	w.Helper()
	var st unix.Stat_t
	if err := unix.Stat(w.store.RealPath(p), &st); err != nil {
		w.Fatal(err)
	}
	return st.Ino
}
