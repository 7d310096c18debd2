// Package workertest has daemons for tests of what talks to daemons: a [Daemon] is a store of its own with who builds and
// collects in it, in this process.
package workertest

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"nixdaemon/localstore"
	"nixdaemon/localstore/gc"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
	"nixdaemon/worker/serving"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// Daemon is a store and what serves it. Its clients are trusted unless Untrusted is set.
type Daemon struct {
	Store     *localstore.Store
	Scheduler *build.Scheduler
	Collector *gc.Collector
	Untrusted bool

	launcher *sandbox.Launcher
	ids      activity.IDs
}

// Open opens the daemon whose store is in root/store. Close it.
func Open(ctx context.Context, root string) (*Daemon, error) {
	store, err := localstore.Open(ctx, localstore.Options{
		StoreDir: storepath.Dir(root + "/store"), StateDir: root + "/var", LogDir: root + "/log", UseWAL: true,
		Features: derivation.AllFeatures(), CADerivations: true,
	})
	if err != nil {
		return nil, err
	}
	launcher, err := sandbox.NewLauncher()
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	d := &Daemon{Store: store, launcher: launcher, Collector: gc.New(gc.Options{Store: store})}
	d.Scheduler = build.New(build.Options{Store: store, Launcher: launcher, IDs: &d.ids, MaxTotalJobs: 2, Log: zerolog.Nop()})
	return d, nil
}

// New opens a daemon below a directory of its own until the test ends.
func New(t testing.TB) *Daemon {
	t.Helper()
	d, err := Open(t.Context(), Root(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Close waits for builds.
func (d *Daemon) Close() error {
	return errors.Join(d.Scheduler.Close(context.Background()), d.launcher.Close(), d.Store.Close())
}

// Serve answers a client of the worker protocol.
func (d *Daemon) Serve(ctx context.Context, stream io.ReadWriter) error {
	return worker.Serve(ctx, stream, worker.Options{
		Store: d.Store, Builder: builder{d.Scheduler}, Collector: collector{d.Collector}, Roots: d.Store.NewTempRoots(), Keys: NoKeys,
		NixVersion: "2.34.8", Settings: Settings(), IDs: &d.ids, User: "alice", Trusted: !d.Untrusted, Log: zerolog.Nop(),
	})
}

// Converse answers a client of the serve protocol.
func (d *Daemon) Converse(ctx context.Context, stream io.ReadWriter, write bool) error {
	return serving.Serve(ctx, stream, serving.Options{
		Store: d.Store, Builder: builder{d.Scheduler}, Roots: d.Store.NewTempRoots(), Settings: Settings(),
		Write: write, User: "alice", Log: activity.Discard{}, Quiet: func() {},
	})
}

// Listen serves the worker protocol on a socket until the test ends, and gives its path.
func (d *Daemon) Listen(t testing.TB) string {
	return Listen(t, func(ctx context.Context, conn net.Conn) { _ = d.Serve(ctx, conn) }) // the client hears of errors
}

// Settings are those of a daemon that builds without a sandbox and substitutes nothing.
func Settings() *settings.Settings {
	s := settings.Defaults(settings.Environment{System: "x86_64-linux", CPUs: 2})
	s.Sandbox, s.MaxJobs, s.Substitute, s.BuildUsersGroup, s.FilterSyscalls = settings.SandboxFalse, 2, false, "", false
	s.ExperimentalFeatures = settings.Features(settings.NixCommand, settings.CADerivations)
	return s
}

// NoKeys trusts nobody.
func NoKeys(*settings.Settings) pathinfo.Keys { return pathinfo.Keys{} }

// Root is a directory for a store, which can be deleted at the end whatever modes its files have.
func Root(t testing.TB) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err == nil {
		err = os.Chmod(root, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				err = os.Chmod(p, 0o700)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	return root
}

// Listen serves connections on a socket until the test ends, and gives its path. The context of serve ends, and its
// connection is closed, by then.
func Listen(t testing.TB, serve func(context.Context, net.Conn)) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "wt") // short, as names of sockets must be
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
				serve(ctx, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		cancel()
		wait.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return socket
}

// builder and collector put answers into the protocol's words, as package daemon does.
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
