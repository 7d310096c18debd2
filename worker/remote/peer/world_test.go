package peer_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"nixdaemon/localstore"
	"nixdaemon/localstore/gc"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/serving"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// rootVar names the variable that makes this program a daemon over the store
// beneath a directory, on its standard input and output.
const rootVar = "PEER_TEST_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(rootVar); root != "" {
		os.Exit(daemonMain(root))
	}
	os.Exit(m.Run())
}

func daemonMain(root string) int {
	fmt.Fprintln(os.Stderr, "serving", strings.Join(os.Args[1:], " "))
	w, err := openWorld(root)
	if err == nil {
		err = w.converse(struct {
			io.Reader
			io.Writer
		}{os.Stdin, os.Stdout})
		w.close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// world is a daemon over a store of its own.
type world struct {
	root     string
	store    *localstore.Store
	launcher *sandbox.Launcher
	sched    *build.Scheduler
	ids      activity.IDs
}

type builder struct{ *build.Scheduler }

func (b builder) QueryMissing(context.Context, *session.Session, []derivation.DerivedPath) (protocol.Missing, error) {
	return protocol.Missing{}, nil
}

type collector struct{ *gc.Collector }

func (collector) FindRoots(context.Context, *session.Session, bool) ([]protocol.Root, error) {
	return nil, nil
}

func (collector) Collect(context.Context, *session.Session, protocol.GCRequest) (protocol.GCResults, error) {
	return protocol.GCResults{}, nil
}

func openWorld(root string) (*world, error) {
	store, err := localstore.Open(context.Background(), localstore.Options{
		StoreDir: storepath.Dir(root + "/store"), StateDir: root + "/var", LogDir: root + "/log", UseWAL: true,
		Features: derivation.AllFeatures(), CADerivations: true,
	})
	if err != nil {
		return nil, err
	}
	launcher, err := sandbox.NewLauncher()
	if err != nil {
		return nil, err
	}
	w := &world{root: root, store: store, launcher: launcher}
	w.sched = build.New(build.Options{Store: store, Launcher: launcher, IDs: &w.ids, MaxTotalJobs: 2, Log: zerolog.Nop()})
	return w, nil
}

func (w *world) close() error {
	w.sched.Close(context.Background())
	w.launcher.Close()
	return w.store.Close()
}

// converse speaks the protocol that the command line says.
func (w *world) converse(stream io.ReadWriter) error {
	if !slices.Contains(os.Args, "--serve") {
		return w.serve(context.Background(), stream)
	}
	return serving.Serve(context.Background(), stream, serving.Options{
		Store: w.store, Builder: builder{w.sched}, Roots: w.store.NewTempRoots(), Settings: testSettings(),
		Write: slices.Contains(os.Args, "--write"), User: "alice", Log: activity.Discard{}, Quiet: func() {},
	})
}

func (w *world) serve(ctx context.Context, stream io.ReadWriter) error {
	return worker.Serve(ctx, stream, worker.Options{
		Store: w.store, Builder: builder{w.sched}, Collector: collector{gc.New(gc.Options{Store: w.store})}, Roots: w.store.NewTempRoots(),
		Keys:       func(*settings.Settings) pathinfo.Keys { return pathinfo.Keys{} },
		NixVersion: "2.34.8", Settings: testSettings(), IDs: &w.ids, User: "alice", Trusted: true, Log: zerolog.Nop(),
	})
}

func testSettings() *settings.Settings {
	s := settings.Defaults(settings.Environment{System: "x86_64-linux", CPUs: 2})
	s.Sandbox, s.MaxJobs, s.Substitute, s.BuildUsersGroup, s.FilterSyscalls = settings.SandboxFalse, 2, false, "", false
	s.ExperimentalFeatures = settings.Features(settings.NixCommand, settings.CADerivations)
	return s
}

func tempRoot(t testing.TB) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(root, 0o755)
	t.Cleanup(func() {
		filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				os.Chmod(p, 0o700)
			}
			return nil
		})
	})
	return root
}

// listen serves a world on a socket until the test ends.
func (w *world) listen(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	socket := dir + "/s"
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				w.serve(ctx, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		cancel()
		wait.Wait()
		os.RemoveAll(dir)
	})
	return socket
}

// openStore opens a reference as a test wants it.
func openStore(t testing.TB, uri string, o peer.Options) peer.Store {
	t.Helper()
	ref, err := settings.ParseStoreReference(uri)
	if err != nil {
		t.Fatal(err)
	}
	if o.Stderr == nil {
		o.Stderr = func(line string) { t.Log("stderr: " + line) }
	}
	o.Features = derivation.AllFeatures()
	s, err := peer.Open(t.Context(), ref, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// thing is a path that is a file.
type thing struct {
	info *pathinfo.Info
	nar  []byte
}

func newThing(t testing.TB, dir storepath.Dir, name, text string, refs ...storepath.Path) thing {
	t.Helper()
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	for _, ref := range refs {
		text += dir.Print(ref)
	}
	if err := w.Regular("", false, uint64(len(text)), strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	h := nixhash.SHA256.New()
	h.Write(b.Bytes())
	hash, err := nixhash.New(nixhash.SHA256, h.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	var part [20]byte
	copy(part[:], hash.Digest())
	p, err := storepath.New(part, name)
	if err != nil {
		t.Fatal(err)
	}
	return thing{nar: b.Bytes(), info: &pathinfo.Info{
		Path: p, NarHash: hash, NarSize: uint64(b.Len()), References: storepath.SortUnique(refs), RegistrationTime: 1,
	}}
}

// recorder keeps what a daemon tells.
type recorder struct {
	activity.Discard
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Result(_ activity.ID, kind activity.ResultType, fields []activity.Field) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if kind == activity.BuildLogLine {
		r.lines = append(r.lines, fields[0].Text)
	}
}
