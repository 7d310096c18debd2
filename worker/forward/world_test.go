package forward_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"nixdaemon/localstore"
	"nixdaemon/localstore/gc"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
	"nixdaemon/worker/forward"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// inner is a daemon over a real store, on a socket of its own.
type inner struct {
	root   string
	store  *localstore.Store
	sched  *build.Scheduler
	gc     *gc.Collector
	ids    activity.IDs
	socket string
	// untrusted makes clients be so.
	untrusted bool
}

// builder and collector put answers into the protocol's words.
type builder struct{ *build.Scheduler }

func (b builder) QueryMissing(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath) (protocol.Missing, error) {
	m, err := b.Scheduler.QueryMissing(ctx, sess, paths)
	return protocol.Missing{WillBuild: m.WillBuild, WillSubstitute: m.WillSubstitute, Unknown: m.Unknown,
		DownloadSize: m.DownloadSize, NarSize: m.NarSize}, err
}

type collector struct{ *gc.Collector }

func (c collector) FindRoots(ctx context.Context, sess *session.Session, censor bool) ([]protocol.Root, error) {
	found, err := c.Collector.FindRoots(ctx, censor, sess.Log)
	var roots []protocol.Root
	for target, links := range found {
		for _, link := range links {
			roots = append(roots, protocol.Root{Link: link, Target: target})
		}
	}
	return roots, err
}

func (c collector) Collect(ctx context.Context, sess *session.Session, req protocol.GCRequest) (protocol.GCResults, error) {
	res, err := c.Collector.Collect(ctx, gc.Request{
		Action: gc.Action(req.Action), WholeStore: req.WholeStore, Paths: req.Paths,
		DeleteReferrers: req.DeleteReferrers, MaxFreed: req.MaxFreed, Log: sess.Log,
	})
	return protocol.GCResults{Paths: res.Paths, BytesFreed: res.BytesFreed}, err
}

func newInner(t testing.TB) *inner {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(root, 0o755)
	store, err := localstore.Open(t.Context(), localstore.Options{
		StoreDir: storepath.Dir(root + "/store"), StateDir: root + "/var", LogDir: root + "/log", UseWAL: true,
		Features: derivation.AllFeatures(), CADerivations: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	launcher, err := sandbox.NewLauncher()
	if err != nil {
		t.Fatal(err)
	}
	d := &inner{root: root, store: store}
	d.sched = build.New(build.Options{Store: store, Launcher: launcher, IDs: &d.ids, MaxTotalJobs: 2, Log: zerolog.Nop()})
	d.gc = gc.New(gc.Options{Store: store})
	t.Cleanup(func() {
		d.sched.Close(context.Background())
		launcher.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				os.Chmod(p, 0o700)
			}
			return nil
		})
	})
	d.socket = listen(t, d.serve)
	return d
}

// listen serves connections on a socket until the test ends.
func listen(t testing.TB, serve func(context.Context, net.Conn)) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fwd")
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
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				defer stop()
				serve(ctx, conn)
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

func testSettings() *settings.Settings {
	s := settings.Defaults(settings.Environment{System: "x86_64-linux", CPUs: 2})
	s.Sandbox, s.MaxJobs, s.Substitute, s.BuildUsersGroup, s.FilterSyscalls = settings.SandboxFalse, 2, false, "", false
	s.ExperimentalFeatures = settings.Features(settings.NixCommand, settings.CADerivations)
	return s
}

func noKeys(*settings.Settings) pathinfo.Keys { return pathinfo.Keys{} }

func (d *inner) serve(ctx context.Context, conn net.Conn) {
	worker.Serve(ctx, conn, worker.Options{
		Store: d.store, Builder: builder{d.sched}, Collector: collector{d.gc}, Roots: d.store.NewTempRoots(),
		Keys: noKeys, NixVersion: "2.34.8", Settings: testSettings(), IDs: &d.ids, User: "alice", Trusted: !d.untrusted, Log: zerolog.Nop(),
	})
}

// outer says how the daemon in front is set up; zero is the usual way.
type outer struct {
	socket    string
	dir       storepath.Dir
	version   uint8 // offered to the inner daemon; 0 is all
	untrusted bool
	settings  *settings.Settings
}

// serve gives the socket of a daemon that forwards.
func (o outer) serve(t testing.TB) string {
	if o.settings == nil {
		o.settings = testSettings()
	}
	var ids activity.IDs
	return listen(t, func(ctx context.Context, conn net.Conn) {
		options := forward.Options{Dial: client.Unix(o.socket), Name: "unix://" + o.socket, Dir: o.dir, Settings: o.settings}
		if o.version != 0 {
			options.Version = protocol.Version{Number: protocol.Minor(o.version)}
		}
		b := forward.New(options)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		err := worker.Serve(ctx, hangup{conn, cancel}, worker.Options{
			Store: b, Builder: b, Collector: b, Substituter: b, Roots: b.Roots(), Keys: noKeys, NixVersion: "2.34.8",
			Settings: o.settings, IDs: &ids, User: "bob", Trusted: !o.untrusted, Log: zerolog.Nop(),
		})
		if err != nil && !strings.Contains(err.Error(), "closed") {
			t.Logf("served: %v", err)
		}
	})
}

// hangup is a stream whose failing writes end what is done for its reader, as
// package daemon does when a client goes away.
type hangup struct {
	net.Conn
	gone context.CancelFunc
}

func (h hangup) Write(p []byte) (int, error) {
	n, err := h.Conn.Write(p)
	if err != nil {
		h.gone()
	}
	return n, err
}

// connect gives a client of a socket that offers 1.minor; 0 is all.
func connect(t testing.TB, socket string, dir storepath.Dir, minor uint8, log activity.Sink) *client.Client {
	o := client.Options{Dial: client.Unix(socket), Dir: dir, MaxConns: 1, Log: log, Features: derivation.AllFeatures()}
	if minor != 0 {
		o.Version = protocol.Version{Number: protocol.Minor(minor)}
	}
	c := client.New(o)
	t.Cleanup(func() { c.Close() })
	return c
}

// message strips what is marked in an error's text.
func message(err error) string {
	if err == nil {
		return ""
	}
	return strings.NewReplacer("\x1b[35;1m", "", "\x1b[0m", "").Replace(err.Error())
}

// recorder keeps what a daemon tells.
type recorder struct {
	mu       sync.Mutex
	messages []string
	results  []string
}

func (r *recorder) Message(_ activity.Level, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, text)
}
func (r *recorder) Start(activity.ID, activity.Level, activity.Type, string, []activity.Field, activity.ID) {
}
func (r *recorder) Stop(activity.ID) {}
func (r *recorder) Result(_ activity.ID, kind activity.ResultType, fields []activity.Field) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if kind == activity.BuildLogLine {
		r.results = append(r.results, fields[0].Text)
	}
}

var errDone = errors.New("done")

// zeros is n bytes of nothing.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }
