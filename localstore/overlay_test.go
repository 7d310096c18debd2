package localstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// layers is a store on what stands for an overlay: a directory to which what is below is linked by show.
type layers struct {
	*Store
	below *Store
	upper string
	opts  Options
}

func openLayers(t *testing.T, change func(*Options)) *layers {
	t.Helper()
	o := testOptions(t)
	o.CADerivations = true
	top := filepath.Dir(string(o.StoreDir))
	lower := o
	lower.RealDir, lower.StateDir, lower.LogDir = top+"/lower/store", top+"/lower/var", top+"/lower/log"
	below, err := Open(ctx, lower)
	if err != nil {
		t.Fatal(err)
	}
	l := &layers{below: below, upper: top + "/upper"}
	if err := os.Mkdir(l.upper, 0o755); err != nil {
		t.Fatal(err)
	}
	o.Overlay = &Overlay{Lower: below.AsLower(), UpperLayer: l.upper}
	if change != nil {
		change(&o)
	}
	l.opts = o
	if l.Store, err = Open(ctx, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Store.Close(); err != nil {
			t.Error(err)
		}
		if _, err := below.IsValid(ctx, mustPath(t, "x")); err == nil {
			t.Error("the lower store is still open")
		}
	})
	return l
}

// addBelow adds to the lower store what the overlay then shows.
func (l *layers) addBelow(t *testing.T, name, text string, refs ...storepath.Path) *pathinfo.Info {
	t.Helper()
	info := addText(t, l.below, name, text, refs...)
	if err := os.Link(l.below.RealPath(info.Path), l.RealPath(info.Path)); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	return info
}

// rows are the names of the paths that the store's own database has.
func rowsOf(t *testing.T, s *Store) []string {
	t.Helper()
	paths, err := s.AllValidPaths(ctx)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(paths))
	for i, p := range paths {
		names[i] = p.Name()
	}
	slices.Sort(names)
	return names
}

func (l *layers) wantRows(t *testing.T, names ...string) {
	t.Helper()
	if diff := cmp.Diff(names, rowsOf(t, l.Store), cmp.Transformer("sorted", func(in []string) string {
		return strings.Join(slices.Sorted(slices.Values(in)), " ")
	})); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestOverlayAnswersFromBelow(t *testing.T) {
	l := openLayers(t, nil)
	a := mustPath(t, "a")
	if valid, err := l.IsValid(ctx, a); valid || err != nil {
		t.Fatal("valid", err)
	}
	low := l.addBelow(t, "low", "low")
	mid := l.addBelow(t, "mid", "mid", low.Path)
	if err := l.below.AddSignatures(ctx, mid.Path, []pathinfo.Signature{"k:AAAA"}); err != nil {
		t.Fatal(err)
	}
	want, err := l.below.PathInfo(ctx, mid.Path)
	if err != nil {
		t.Fatal(err)
	}
	same := func() {
		t.Helper()
		if got, err := l.PathInfo(ctx, mid.Path); err != nil || !cmp.Equal(got, want, cmp.Comparer(func(a, b nixhash.Hash) bool { return a == b }), cmp.Comparer(func(a, b storepath.Path) bool { return a == b }), cmp.Comparer(func(a, b storepath.ContentAddress) bool { return a == b })) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		if got, err := l.Referrers(ctx, low.Path); err != nil || !slices.Equal(got, []storepath.Path{mid.Path}) {
			t.Error(got, err)
		}
		if got, err := l.PathFromHashPart(ctx, low.Path.HashPart()); err != nil || got != low.Path {
			t.Error(got, err)
		}
		if got, err := l.Closure(ctx, []storepath.Path{mid.Path}, ClosureOptions{}); err != nil || len(got) != 2 {
			t.Error(got, err)
		}
	}
	same()
	l.wantRows(t)
	if got, err := l.ValidPaths(ctx, []storepath.Path{a, mid.Path}); err != nil || !slices.Equal(got, []storepath.Path{mid.Path}) {
		t.Error(got, err)
	}
	l.wantRows(t, "low", "mid")
	same()
	later := l.addBelow(t, "later", "later")
	if valid, err := l.IsValid(ctx, later.Path); !valid || err != nil {
		t.Error("what came later is not seen", err)
	}
	l.wantRows(t, "low", "mid", "later")
}

func TestOverlayOnlyRead(t *testing.T) {
	l := openLayers(t, nil)
	low := l.addBelow(t, "low", "low")
	o := l.opts
	o.ReadOnly = true
	o.Overlay = &Overlay{Lower: unclosed{l.below.AsLower()}}
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if valid, err := s.IsValid(ctx, low.Path); !valid || err != nil {
		t.Error(valid, err)
	}
	if got := rowsOf(t, s); len(got) != 0 {
		t.Error(got)
	}
}

// unclosed is a lower store that somebody else closes.
type unclosed struct{ Lower }

func (unclosed) Close() error { return nil }

func TestOverlayAddsAbove(t *testing.T) {
	l := openLayers(t, nil)
	low := l.addBelow(t, "low", "low")
	mid := l.addBelow(t, "mid", "mid", low.Path)
	top := addText(t, l.Store, "top", "top", mid.Path)
	l.wantRows(t, "low", "mid", "top")
	if got, err := l.Referrers(ctx, mid.Path); err != nil || !slices.Equal(got, []storepath.Path{top.Path}) {
		t.Error(got, err)
	}
	if got := rowsOf(t, l.below); !slices.Equal(got, []string{"low", "mid"}) {
		t.Error("the lower store has", got)
	}
	// What is registered again keeps what is known of it below.
	again := l.addBelow(t, "again", "again")
	if err := l.below.AddSignatures(ctx, again.Path, []pathinfo.Signature{"below:AAAA"}); err != nil {
		t.Fatal(err)
	}
	other := *again
	other.Deriver, other.RegistrationTime = mustPath(t, "x.drv"), 5
	if err := l.Register(ctx, []*pathinfo.Info{&other}); err != nil {
		t.Fatal(err)
	}
	if got, err := l.PathInfo(ctx, again.Path); err != nil || !got.Deriver.IsZero() || got.RegistrationTime == 5 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := l.AddSignatures(ctx, low.Path, []pathinfo.Signature{"above:AAAA"}); err != nil {
		t.Fatal(err)
	}
	if got, err := l.below.PathInfo(ctx, low.Path); err != nil || len(got.Sigs) != 0 {
		t.Error("the lower store was signed", got, err)
	}
	if got, err := l.PathInfo(ctx, low.Path); err != nil || len(got.Sigs) != 1 {
		t.Error(got, err)
	}
	missing := *again
	missing.Path, missing.CA, missing.References = mustPath(t, "y"), storepath.ContentAddress{}, []storepath.Path{mustPath(t, "z")}
	if err := l.Register(ctx, []*pathinfo.Info{&missing}); !errors.As(err, new(*NotValidError)) {
		t.Error("a reference that nobody has:", err)
	}
}

func TestOverlayDerivations(t *testing.T) {
	l := openLayers(t, nil)
	text, out := testDerivation(t, l.below, "hello")
	drv := l.addBelow(t, "hello.drv", text)
	if got, err := l.ValidDerivers(ctx, out); err != nil || !slices.Equal(got, []storepath.Path{drv.Path}) {
		t.Error(got, err)
	}
	l.wantRows(t)
	if got, err := l.DerivationOutputs(ctx, drv.Path); err != nil || got["out"] != out {
		t.Error(got, err)
	}
	l.wantRows(t, "hello.drv")
	if got, err := l.ReadDerivation(ctx, drv.Path); err != nil || got.Name != "hello" {
		t.Error(got, err)
	}
	if _, err := l.DerivationOutputs(ctx, mustPath(t, "x.drv")); !errors.As(err, new(*NotValidError)) {
		t.Error(err)
	}
}

func TestOverlayRealisations(t *testing.T) {
	l := openLayers(t, nil)
	out, other := l.addBelow(t, "out", "out"), l.addBelow(t, "other", "other")
	id := pathinfo.DrvOutput{DrvHash: nixhash.Of(nixhash.SHA256, "drv"), Output: "out"}
	below := &pathinfo.Realisation{ID: id, OutPath: out.Path, Sigs: []pathinfo.Signature{"below:AAAA"}}
	if err := l.below.RegisterRealisation(ctx, below); err != nil {
		t.Fatal(err)
	}
	if got, err := l.QueryRealisation(ctx, id); err != nil || got == nil || got.OutPath != out.Path {
		t.Fatal(got, err)
	}
	if err := l.RegisterRealisation(ctx, &pathinfo.Realisation{ID: id, OutPath: other.Path}); !errors.As(err, new(*RealisationConflictError)) {
		t.Error("hides what is below:", err)
	}
	above := &pathinfo.Realisation{ID: id, OutPath: out.Path, Sigs: []pathinfo.Signature{"above:AAAA"}}
	if err := l.RegisterRealisation(ctx, above); err != nil {
		t.Fatal(err)
	}
	if got, err := l.QueryRealisation(ctx, id); err != nil || len(got.Sigs) != 2 {
		t.Error(got, err)
	}
	if got, err := l.below.QueryRealisation(ctx, id); err != nil || len(got.Sigs) != 1 {
		t.Error("the lower store was changed:", got, err)
	}
}

// chain is a lower store of that many paths, each of which refers to the one before, and itself.
type chain struct {
	unclosed
	infos map[storepath.Path]*pathinfo.Info
	last  storepath.Path
	fails error
}

func newChain(t *testing.T, n int) *chain {
	c := &chain{infos: make(map[storepath.Path]*pathinfo.Info, n)}
	for i := range n {
		p, err := storepath.New([20]byte{byte(i), byte(i >> 8), 1}, fmt.Sprint("c", i))
		if err != nil {
			t.Fatal(err)
		}
		info := &pathinfo.Info{Path: p, NarHash: nixhash.Of(nixhash.SHA256, "x"), NarSize: 1, References: []storepath.Path{p}}
		if i > 0 {
			info.References = storepath.SortUnique(append(info.References, c.last))
		}
		c.infos[p], c.last = info, p
	}
	return c
}

func (c *chain) PathInfos(_ context.Context, paths []storepath.Path) (infos []*pathinfo.Info, err error) {
	for _, p := range paths {
		if info := c.infos[p]; info != nil {
			infos = append(infos, info)
		}
	}
	return infos, c.fails
}

func (c *chain) Refresh(context.Context) error { return c.fails }

// TestAdoptCrash breaks off the adoption of a long closure after each transaction: what has a row is complete, and the rest
// can be adopted afterwards.
func TestAdoptCrash(t *testing.T) {
	const n = 2*adoptAtOnce + 10
	c := newChain(t, n)
	for stop := range 3 {
		o := testOptions(t)
		o.Overlay = &Overlay{Lower: c}
		steps := 0
		o.Step = func(string) error {
			if steps++; steps > stop {
				return errCrash
			}
			return nil
		}
		s, err := Open(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.IsValid(ctx, c.last); !errors.Is(err, errCrash) {
			t.Error("did not crash:", err)
		}
		if got, want := len(rowsOf(t, s)), min((stop+1)*adoptAtOnce, n); got != want {
			t.Errorf("%d rows, want %d", got, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		o.Step = nil
		if s, err = Open(ctx, o); err != nil {
			t.Fatal(err)
		}
		if valid, err := s.IsValid(ctx, c.last); !valid || err != nil {
			t.Error(valid, err)
		}
		if got, err := s.Closure(ctx, []storepath.Path{c.last}, ClosureOptions{}); err != nil || len(got) != n || len(rowsOf(t, s)) != n {
			t.Errorf("%d paths, %v", len(got), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLowerFails has nothing taken for missing that could not be asked for.
func TestLowerFails(t *testing.T) {
	c := newChain(t, 1)
	s := open(t, func(o *Options) { o.Overlay = &Overlay{Lower: c} })
	c.fails = errors.New("nobody answers")
	for name, f := range map[string]func() error{
		"IsValid":    func() error { _, err := s.IsValid(ctx, c.last); return err },
		"PathInfo":   func() error { _, err := s.PathInfo(ctx, c.last); return err },
		"ValidPaths": func() error { _, err := s.ValidPaths(ctx, []storepath.Path{c.last}); return err },
		"Register":   func() error { return s.Register(ctx, []*pathinfo.Info{c.infos[c.last]}) },
		"Refresh":    func() error { return s.Refresh(ctx) },
	} {
		if err := f(); !errors.Is(err, c.fails) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOverlayIsChecked(t *testing.T) {
	o := testOptions(t)
	o.Overlay = &Overlay{Lower: newChain(t, 0), Check: func() error { return errCrash }}
	if s, err := Open(ctx, o); !errors.Is(err, errCrash) {
		t.Error(s, err)
	}
	if _, err := os.Lstat(string(o.StoreDir)); err == nil {
		t.Error("something was made where the overlay should be")
	}
}

// TestDeleteUpper shows where things are deleted that are in one layer, or both.
func TestDeleteUpper(t *testing.T) {
	remounts := 0
	l := openLayers(t, func(o *Options) {
		o.Overlay.Remount = func(_ context.Context, dir string) error {
			if remounts++; dir != string(o.StoreDir) || remounts > 1 {
				return errCrash
			}
			return nil
		}
	})
	u, ok := l.Upper()
	if _, plain := l.below.Upper(); !ok || plain {
		t.Fatal(ok, plain)
	}
	only, both := l.addBelow(t, "only", "only"), l.addBelow(t, "both", "both")
	above := addText(t, l.Store, "above", "above", both.Path)
	for _, name := range []string{both.Path.Base(), above.Path.Base(), "junk"} {
		for _, dir := range []string{l.upper, l.RealDir()} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("text"), 0o644); err != nil {
				os.Remove(filepath.Join(dir, name))
				os.WriteFile(filepath.Join(dir, name), []byte("text"), 0o644)
			}
		}
	}
	for name, want := range map[string]struct{ freed, upper, shown bool }{
		only.Path.Base():  {false, false, true},
		both.Path.Base():  {true, false, true},
		above.Path.Base(): {true, true, false}, // a real overlay deletes it from the layer
		"junk":            {true, true, false},
	} {
		freed, err := u.DeleteTree(ctx, filepath.Join(l.RealDir(), name))
		if err != nil || freed > 0 != want.freed {
			t.Errorf("%s: freed %d, %v", name, freed, err)
		}
		for dir, want := range map[string]bool{l.upper: want.upper, l.RealDir(): want.shown} {
			if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != want {
				t.Errorf("%s in %s: %v", name, dir, err)
			}
		}
	}
	if _, err := os.Lstat(l.below.RealPath(both.Path)); err != nil {
		t.Error(err)
	}
	if got, err := u.Referrers(ctx, both.Path); err != nil || !slices.Equal(got, []storepath.Path{above.Path}) {
		t.Error(got, err)
	}
	for range 2 { // the second time there is no need
		if err := l.Remount(ctx, activity.Discard{}); err != nil || remounts != 1 {
			t.Error(remounts, err)
		}
	}
}

func TestOptimiseLayers(t *testing.T) {
	l := openLayers(t, nil)
	twice, once := l.addBelow(t, "twice", "twice"), addText(t, l.Store, "once", "once")
	l.IsValid(ctx, twice.Path)
	for _, info := range []*pathinfo.Info{twice, once} {
		if err := os.WriteFile(filepath.Join(l.upper, info.Path.Base()), nil, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	var said, progress []string
	stats, err := l.OptimiseAll(ctx, OptimiseProgress{
		Paths: func(done, all uint64) { progress = append(progress, fmt.Sprint(done, "/", all)) },
		Log:   sinkFunc(func(_ activity.Level, text string) { said = append(said, text) }),
	})
	if err != nil || !stats.Layers || !slices.Equal(progress, []string{"0/2", "1/2", "2/2"}) {
		t.Error(stats, err, progress)
	}
	if want := `warning: "` + l.RealDir() + `" needs remounting, set remount-hook to do this automatically`; !slices.Equal(said, []string{want}) {
		t.Errorf("said %q", said)
	}
	left, err := os.ReadDir(l.upper)
	if err != nil || len(left) != 1 || left[0].Name() != once.Path.Base() {
		t.Error(left, err)
	}
	l.wantRows(t, "once", "twice")
}

// TestAdopt has a collector see what depends on paths of the lower store.
func TestAdopt(t *testing.T) {
	l := openLayers(t, nil)
	text, out := testDerivation(t, l.below, "hello")
	drv := l.addBelow(t, "hello.drv", text)
	made := &pathinfo.Info{Path: out, NarHash: nixhash.Of(nixhash.SHA256, "x"), NarSize: 1, Deriver: drv.Path}
	if err := l.below.Register(ctx, []*pathinfo.Info{made}); err != nil {
		t.Fatal(err)
	}
	l.addBelow(t, "shown", "shown")
	addText(t, l.below, "hidden", "hidden")
	u, _ := l.Upper()
	for _, step := range []struct {
		do   func() error
		want []string
	}{
		{func() error { return u.Adopt(ctx, []storepath.Path{drv.Path}, false, false) }, []string{"hello.drv"}},
		{func() error { return u.Adopt(ctx, []storepath.Path{drv.Path}, true, false) }, []string{"hello.drv", "hello"}},
		{func() error { _, err := l.InvalidateAll(ctx, []storepath.Path{drv.Path, out}); return err }, nil},
		{func() error { return u.Adopt(ctx, []storepath.Path{out}, false, true) }, []string{"hello.drv", "hello"}},
		{func() error { return u.AdoptAll(ctx) }, []string{"hello.drv", "hello", "shown"}},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		l.wantRows(t, step.want...)
	}
}

// sinkFunc is a sink of messages alone.
type sinkFunc func(level activity.Level, text string)

func (f sinkFunc) Message(level activity.Level, text string) { f(level, text) }

func (sinkFunc) Start(activity.ID, activity.Level, activity.Type, string, []activity.Field, activity.ID) {
}
func (sinkFunc) Stop(activity.ID)                                          {}
func (sinkFunc) Result(activity.ID, activity.ResultType, []activity.Field) {}
