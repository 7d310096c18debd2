package gc

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/localstore/internal/db"
	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
)

// fixture is a store on disk.
type fixture struct {
	t   testing.TB
	opt localstore.Options
	dir storepath.Dir
	*localstore.Store
}

// newFixture makes a store that has what the shape says, with a file or a small tree for each path. The paths are as in testPath.
func newFixture(t testing.TB, s *shape) *fixture {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, opt: localstore.DefaultOptions()}
	f.opt.StoreDir = storepath.Dir(filepath.Join(top, "store"))
	f.opt.StateDir = filepath.Join(top, "var")
	f.opt.LogDir = filepath.Join(top, "log")
	f.opt.ReservedSpace = 4096
	f.dir = f.opt.StoreDir
	f.open()
	f.fill(s)
	t.Cleanup(func() {
		f.Store.Close()
		filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				os.Chmod(path, 0o755) // or only root could remove it
			}
			return nil
		})
	})
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	var err error
	if f.Store, err = localstore.Open(context.Background(), f.opt); err != nil {
		f.t.Fatal(err)
	}
}

// reopen is what a new process would do.
func (f *fixture) reopen() {
	f.t.Helper()
	if err := f.Store.Close(); err != nil {
		f.t.Fatal(err)
	}
	f.open()
}

// fill writes rows directly, since a shape's derivations are none that could be parsed.
func (f *fixture) fill(s *shape) {
	f.t.Helper()
	ctx := context.Background()
	base, err := db.Open(ctx, db.Options{Dir: filepath.Join(f.opt.StateDir, "db"), UseWAL: true, ReservedSize: -1, Logger: func(string) {}})
	if err != nil {
		f.t.Fatal(err)
	}
	defer base.Close()
	rows := make([]db.PathRow, s.n)
	outputs := make(map[string]map[string]string)
	for i := range s.n {
		path := f.dir.Print(testPath(i))
		rows[i] = db.PathRow{Path: path, Hash: "sha256:" + strings.Repeat("0", 64), NarSize: 1000}
		for _, ref := range s.refs[i] {
			rows[i].References = append(rows[i].References, f.dir.Print(testPath(ref)))
		}
		if drv, ok := s.deriver[i]; ok {
			rows[i].Deriver = f.dir.Print(testPath(drv))
		}
		for k, out := range s.outputs[i] {
			if outputs[path] == nil {
				outputs[path] = make(map[string]string)
			}
			outputs[path][fmt.Sprintf("out%d", k)] = f.dir.Print(testPath(out))
		}
		f.content(path, i)
	}
	if err := base.Write(ctx, func(tx *db.Tx) error { return tx.Register(rows, outputs) }); err != nil {
		f.t.Fatal(err)
	}
}

// content makes a file of 100 bytes, or a directory with one of 200.
func (f *fixture) content(path string, i int) {
	f.t.Helper()
	var err error
	if i%5 == 4 {
		if err = os.Mkdir(path, 0o755); err == nil {
			if err = os.WriteFile(path+"/file", make([]byte, 200), 0o444); err == nil {
				err = os.Chmod(path, 0o555)
			}
		}
	} else {
		err = os.WriteFile(path, make([]byte, 100), 0o444)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

func sizeOf(i int) uint64 {
	if i%5 == 4 {
		return 200
	}
	return 100
}

func (f *fixture) root(name string, i int) {
	f.t.Helper()
	if err := os.Symlink(f.dir.Print(testPath(i)), filepath.Join(f.opt.StateDir, "gcroots", name)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(string(f.dir), name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// onDisk gives the names in the store directory, without .links.
func (f *fixture) onDisk() []string {
	f.t.Helper()
	entries, err := os.ReadDir(string(f.dir))
	if err != nil {
		f.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != linksName {
			names = append(names, e.Name())
		}
	}
	return names
}

func names(ns ...int) []string {
	var out []string
	for _, n := range ns {
		out = append(out, testPath(n).Base())
	}
	return out
}

// check compares what is valid and what is on disk with the numbers of paths, and demands that valid ones are closed.
func (f *fixture) check(want ...int) {
	f.t.Helper()
	ctx := context.Background()
	valid, err := f.AllValidPaths(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	var got []string
	for _, p := range valid {
		got = append(got, p.Base())
	}
	if !slices.Equal(got, names(want...)) {
		f.t.Errorf("valid are %v, want %v", got, names(want...))
	}
	if disk := f.onDisk(); !slices.Equal(disk, names(want...)) {
		f.t.Errorf("on disk are %v, want %v", disk, names(want...))
	}
	f.verify()
}

// verify demands that all that is valid exists, as does all that it refers to.
func (f *fixture) verify() {
	f.t.Helper()
	ctx := context.Background()
	valid, err := f.AllValidPaths(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, p := range valid {
		if _, err := os.Lstat(f.RealPath(p)); err != nil {
			f.t.Errorf("valid path without files: %v", err)
		}
		info, err := f.PathInfo(ctx, p)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, ref := range info.References {
			if !storepath.Contains(valid, ref) {
				f.t.Errorf("%s refers to %s, which is not valid", p, ref)
			}
		}
	}
}

func (f *fixture) collector(step func(string) error) *Collector {
	return New(Options{Store: f.Store, Step: step})
}

func wholeStore(action Action) Request {
	return Request{Action: action, WholeStore: true, MaxFreed: 1<<64 - 1}
}

func (f *fixture) collect(req Request) Results {
	f.t.Helper()
	res, err := f.collector(nil).Collect(context.Background(), req)
	if err != nil {
		f.t.Fatal(err)
	}
	return res
}

// messages is a sink that remembers.
type messages struct {
	activity.Discard
	mu   sync.Mutex
	list []string
}

func (m *messages) Message(level activity.Level, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = append(m.list, fmt.Sprintf("%d %s", level, text))
}

func (m *messages) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.list)
}

// lock takes the lock of a file or directory of the store as another process would.
func (f *fixture) lock(name string) *os.File {
	f.t.Helper()
	file, err := os.Open(filepath.Join(string(f.dir), name))
	if err != nil {
		f.t.Fatal(err)
	}
	if ok, err := pathlock.TryFlock(file, pathlock.Exclusive); !ok || err != nil {
		f.t.Fatal(ok, err)
	}
	f.t.Cleanup(func() { file.Close() })
	return file
}
