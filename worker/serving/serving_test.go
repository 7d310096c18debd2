package serving

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/export"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/protocoltest"
	"nixdaemon/protocol/serve"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// builder notes what it is asked; it builds nothing.
type builder struct {
	worker.Builder
	sess    *session.Session
	built   []derivation.DerivedPath
	missing protocol.Missing
	err     error
	outputs map[string]storepath.Path
}

func (b *builder) BuildPaths(_ context.Context, sess *session.Session, paths []derivation.DerivedPath, _ derivation.BuildMode) error {
	b.sess, b.built = sess, paths
	return b.err
}

func (b *builder) BuildDerivation(_ context.Context, sess *session.Session, _ storepath.Path, _ *derivation.BasicDerivation, _ derivation.BuildMode) (derivation.BuildResult, error) {
	b.sess = sess
	return derivation.BuildResult{Status: derivation.StatusBuilt}, b.err
}

func (b *builder) QueryMissing(context.Context, *session.Session, []derivation.DerivedPath) (protocol.Missing, error) {
	return b.missing, nil
}

func (b *builder) OutputMap(context.Context, storepath.Path) (map[string]storepath.Path, error) {
	return b.outputs, nil
}

// lines keeps messages.
type lines struct {
	activity.Discard
	texts []string
}

func (l *lines) Message(_ activity.Level, text string) { l.texts = append(l.texts, text) }

// world is a store that is served, and its client.
type world struct {
	*testing.T
	store *localstore.Store
	b     builder
	log   lines
	quiet int
}

func newWorld(t *testing.T) *world {
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
	t.Cleanup(func() {
		store.Close()
		filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				os.Chmod(p, 0o700)
			}
			return nil
		})
	})
	return &world{T: t, store: store}
}

// talk has a conversation of a version.
func (w *world) talk(v serve.Version, f func(*serve.Conn)) {
	w.Helper()
	a, b := protocoltest.Pipe(w.T)
	done := make(chan error, 1)
	go func() {
		done <- Serve(context.Background(), b, Options{
			Store: w.store, Builder: &w.b, Roots: w.store.NewTempRoots(), Write: true, User: "hydra", Log: &w.log,
			Settings: settings.Defaults(settings.Environment{System: "x86_64-linux", CPUs: 1}), Quiet: func() { w.quiet++ },
		})
		b.Close()
	}()
	c, err := serve.Dial(a, w.store.Dir(), v, "host")
	if err != nil {
		w.Fatal(err)
	}
	f(c)
	a.Close()
	if err := <-done; err != nil {
		w.Errorf("server: %v", err)
	}
}

// file makes a path that is a file, and its archive.
func (w *world) file(name, text string, refs ...storepath.Path) (*pathinfo.Info, []byte) {
	w.Helper()
	archive := nartest.File(text)
	hash := nixhash.Of(nixhash.SHA256, string(archive))
	p, err := storepath.New([20]byte(hash.Digest()[:20]), name)
	if err != nil {
		w.Fatal(err)
	}
	return &pathinfo.Info{Path: p, NarHash: hash, NarSize: uint64(len(archive)), References: storepath.SortUnique(refs)}, archive
}

func writing(data []byte) func(io.Writer) error {
	return func(w io.Writer) error { _, err := w.Write(data); return err }
}

// TestHydra copies an export there, as Hydra does, asks for closures, and
// builds.
func TestHydra(t *testing.T) {
	w := newWorld(t)
	leaf, leafNAR := w.file("leaf", "leaf")
	out, outNAR := w.file("out", "out")
	drv, drvNAR := w.file("x.drv", `Derive([("out","","r:sha256","")],[],["`+w.store.Dir().Print(leaf.Path)+`"],"x","/bin/sh",[],[("out","")])`, leaf.Path)
	w.b.outputs = map[string]storepath.Path{"out": out.Path, "later": leaf.Path, "unknown": {}}
	w.talk(serve.Latest, func(c *serve.Conn) {
		err := c.Import(func(to io.Writer) error {
			one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
			return errors.Join(
				writing(one)(to), export.WritePath(to, w.store.Dir(), leaf, writing(leafNAR)),
				writing(one)(to), export.WritePath(to, w.store.Dir(), drv, writing(drvNAR)),
				writing(make([]byte, 8))(to))
		})
		if err != nil {
			t.Error(err)
			return
		}
		if err := c.Add(out, writing(outNAR)); err != nil {
			t.Error(err)
			return
		}
		closure, err := c.Closure([]storepath.Path{drv.Path}, false)
		if want := storepath.SortUnique([]storepath.Path{drv.Path, leaf.Path}); err != nil || !slices.Equal(closure, want) {
			t.Errorf("closure %v, %v", closure, err)
		}
		closure, err = c.Closure([]storepath.Path{drv.Path}, true)
		if want := storepath.SortUnique([]storepath.Path{drv.Path, leaf.Path, out.Path}); err != nil || !slices.Equal(closure, want) {
			t.Errorf("closure with outputs %v, %v", closure, err)
		}
		_, err = c.BuildDerivation(serve.BuildDerivationRequest{DrvPath: drv.Path, Derivation: &derivation.BasicDerivation{
			Name: "x", Outputs: map[string]derivation.Output{"out": {Kind: derivation.InputAddressed, Path: out.Path}},
		}, Options: serve.BuildOptions{MaxSilentTime: 1, BuildTimeout: 2, MaxLogSize: 3, KeepFailed: true}})
		if err != nil {
			t.Error(err)
		}
	})
	if w.b.sess == nil {
		t.Fatal("nothing was built")
	}
	s := w.b.sess.Settings
	if s.MaxSilentTime != 1 || s.Timeout != 2 || s.MaxBuildLogSize != 3 || !s.KeepFailed || s.Substitute || s.KeepBuildLog || !s.RunDiffHook {
		t.Errorf("settings %d %d %d %v %v %v %v", s.MaxSilentTime, s.Timeout, s.MaxBuildLogSize, s.KeepFailed, s.Substitute, s.KeepBuildLog, s.RunDiffHook)
	}
	if w.quiet != 1 {
		t.Errorf("told to be quiet %d times", w.quiet)
	}
}

// TestSubstitute substitutes what can be; failures are warnings.
func TestSubstitute(t *testing.T) {
	w := newWorld(t)
	a, _ := w.file("a", "a")
	drv, _ := w.file("d.drv", "d")
	w.b.missing.WillSubstitute = []storepath.Path{a.Path}
	w.b.err = errors.New("the cache is down")
	w.talk(serve.Oldest, func(c *serve.Conn) {
		valid, err := c.ValidPaths(serve.ValidPathsRequest{Lock: true, Substitute: true, Paths: storepath.SortUnique([]storepath.Path{a.Path, drv.Path})})
		if err != nil || len(valid) != 0 {
			t.Errorf("valid %v, %v", valid, err)
		}
		// Builds fail with a status, in a form that the protocol has.
		err = c.BuildPaths([]derivation.DerivedPath{{Path: a.Path}}, serve.BuildOptions{KeepFailed: true})
		var failure *serve.BuildFailure
		if !errors.As(err, &failure) || failure.Status != 1 || !strings.Contains(failure.Message, "the cache is down") {
			t.Errorf("failure %v", err)
		}
		if w.b.sess.Settings.KeepFailed {
			t.Error("an option that the version does not have was taken on")
		}
		if infos, err := c.PathInfos([]storepath.Path{a.Path}); err != nil || len(infos) != 0 {
			t.Errorf("infos %v, %v", infos, err)
		}
	})
	if len(w.log.texts) != 1 || !strings.Contains(w.log.texts[0], "the cache is down") {
		t.Errorf("log %q", w.log.texts)
	}
}
