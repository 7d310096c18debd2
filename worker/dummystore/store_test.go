package dummystore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/session"
)

// ledger has so much memory.
type ledger struct {
	mu   sync.Mutex
	left int64
}

func (l *ledger) Take(n int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > l.left {
		return false
	}
	l.left -= n
	return true
}

func (l *ledger) Give(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left += n
}

const room = 4 << 20

type world struct {
	testing.TB
	ctx    context.Context
	memory *ledger
	store  *Store
}

// newWorld makes a store that can be added to, and checks in the end that it gives all memory back.
func newWorld(t testing.TB) *world {
	w := &world{t, t.Context(), &ledger{left: room}, nil}
	w.store = New(Options{Dir: storepath.DefaultDir, Memory: w.memory})
	t.Cleanup(func() {
		if err := w.store.Roots().Close(); err != nil || w.memory.left != room {
			t.Errorf("close: %v; %d bytes are not given back", err, room-w.memory.left)
		}
	})
	return w
}

// path makes metadata and the archive of a file.
func (w *world) path(name, contents string, refs ...storepath.Path) (*pathinfo.Info, []byte) {
	data := nartest.File(contents)
	sum := nixhash.Of(nixhash.SHA256, string(data))
	p, err := storepath.ParseBase(sum.Nix32()[:32] + "-" + name)
	if err != nil {
		w.Fatal(err)
	}
	return &pathinfo.Info{Path: p, NarHash: sum, NarSize: uint64(len(data)), References: refs}, data
}

var believed = localstore.AddOptions{DontCheckSigs: true}

func (w *world) add(info *pathinfo.Info, data []byte) {
	w.Helper()
	if err := w.store.AddNAR(w.ctx, info, bytes.NewReader(data), believed); err != nil {
		w.Fatal(err)
	}
}

func (w *world) refused(err error, want string) {
	w.Helper()
	if err == nil || err.Error() != want {
		w.Errorf("got %v, want %s", err, want)
	}
}

func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	leaf, leafData := w.path("leaf", "leaf")
	top, topData := w.path("top", "top", leaf.Path)
	w.add(leaf, leafData)
	w.add(top, topData)
	w.add(top, topData) // again
	var got bytes.Buffer
	if err := w.store.DumpFile(w.ctx, w.store.RealPath(top.Path), &got); err != nil || !bytes.Equal(got.Bytes(), topData) {
		t.Errorf("dump: %q, %v", got.String(), err)
	}
	closure, err := w.store.Closure(w.ctx, []storepath.Path{top.Path}, localstore.ClosureOptions{})
	if err != nil || !slices.Equal(closure, storepath.SortUnique([]storepath.Path{top.Path, leaf.Path})) {
		t.Errorf("closure: %v, %v", closure, err)
	}
	absent, _ := w.path("absent", "absent")
	valid, err := w.store.ValidPaths(w.ctx, []storepath.Path{absent.Path, top.Path})
	if err != nil || !slices.Equal(valid, []storepath.Path{top.Path}) {
		t.Errorf("valid: %v, %v", valid, err)
	}
	_, err = w.store.PathInfo(w.ctx, absent.Path)
	w.refused(err, "path '/nix/store/"+absent.Path.Base()+"' is not valid")
	w.refused(w.store.Dump(w.ctx, absent.Path, io.Discard), err.Error())
	_, err = w.store.Closure(w.ctx, []storepath.Path{absent.Path}, localstore.ClosureOptions{})
	w.refused(err, "path '/nix/store/"+absent.Path.Base()+"' is not valid")

	// Out and in again, in the format of "nix-store --export".
	var exported bytes.Buffer
	out := wire.NewWriter(&exported)
	for _, p := range []storepath.Path{leaf.Path, top.Path} {
		out.Uint64(1)
		if err := w.store.ExportPath(w.ctx, p, out); err != nil {
			t.Fatal(err)
		}
	}
	out.Uint64(0)
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	other := newWorld(t)
	paths, err := other.store.ImportPaths(w.ctx, wire.NewReader(&exported), believed)
	if err != nil || !slices.Equal(paths, []storepath.Path{leaf.Path, top.Path}) {
		t.Fatalf("import: %v, %v", paths, err)
	}
	info, err := other.store.PathInfo(w.ctx, top.Path)
	if err != nil || info.NarHash != top.NarHash || !slices.Equal(info.References, top.References) {
		t.Errorf("imported: %+v, %v", info, err)
	}
}

// TestRefused checks upstream's texts and their order, and that archives are read all the same.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	info, data := w.path("x", "x")
	r := bytes.NewReader(data)
	w.refused(w.store.AddNAR(w.ctx, info, r, localstore.AddOptions{}), "checking signatures is not supported for 'dummy://' store")
	if r.Len() != 0 {
		t.Errorf("%d bytes of the archive are left", r.Len())
	}
	w.refused(w.store.AddNAR(w.ctx, info, bytes.NewReader(data), localstore.AddOptions{Repair: true}), "repairing is not supported for 'dummy://' store")
	wrong := *info
	wrong.NarSize++
	if err := w.store.AddNAR(w.ctx, &wrong, bytes.NewReader(data), believed); err == nil || !strings.HasPrefix(err.Error(), "size mismatch importing path") {
		t.Errorf("size: %v", err)
	}
	wrong = *info
	wrong.NarHash = nixhash.Of(nixhash.SHA256, "else")
	if err := w.store.AddNAR(w.ctx, &wrong, bytes.NewReader(data), believed); err == nil || !strings.HasPrefix(err.Error(), "hash mismatch importing path") {
		t.Errorf("hash: %v", err)
	}
	if err := w.store.AddNAR(w.ctx, info, bytes.NewReader(data[:len(data)-8]), believed); err == nil {
		t.Error("a truncated archive was taken")
	}
	if valid, err := w.store.IsValid(w.ctx, info.Path); valid || err != nil {
		t.Errorf("valid: %v, %v", valid, err)
	}
	text := localstore.DumpSpec{Name: "t", Method: storepath.MethodText, Algo: nixhash.SHA256}
	drv := text
	drv.Name = "t.drv"
	_, err := w.store.AddDump(w.ctx, drv, strings.NewReader("x"), localstore.AddOptions{})
	w.refused(err, "Do not insert derivation into dummy store with `addToStoreFromDump`")
	_, err = w.store.AddDump(w.ctx, text, strings.NewReader("x"), localstore.AddOptions{Repair: true})
	w.refused(err, "repairing is not supported for 'dummy://' store")

	w.store.o.ReadOnly = true
	_, err = w.store.AddDump(w.ctx, text, strings.NewReader("x"), localstore.AddOptions{})
	w.refused(err, "operation 'addToStoreFromDump' is not supported by store 'dummy://'")
	w.refused(w.store.AddNAR(w.ctx, info, bytes.NewReader(data), believed), "operation 'addToStore' is not supported by store 'dummy://'")
}

func TestAddDump(t *testing.T) {
	w := newWorld(t)
	file := nartest.File("hello")
	var dir bytes.Buffer
	n := nar.NewWriter(&dir)
	if err := errors.Join(n.Directory(""), n.EndDirectory(), n.Close()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, data string
		spec       localstore.DumpSpec
		nar        []byte
		hashed     string
	}{
		{"flat", "hello", localstore.DumpSpec{Name: "x", Method: storepath.MethodFlat, Algo: nixhash.SHA1}, file, "hello"},
		{"text", "hello", localstore.DumpSpec{Name: "y", Method: storepath.MethodText, Algo: nixhash.SHA256}, file, "hello"},
		{"old flat", string(file), localstore.DumpSpec{Name: "z", Method: storepath.MethodFlat, Algo: nixhash.SHA256, IsNAR: true}, file, "hello"},
		{"tree", dir.String(), localstore.DumpSpec{Name: "t", Method: storepath.MethodNAR, Algo: nixhash.SHA256}, dir.Bytes(), dir.String()},
	} {
		info, err := w.store.AddDump(w.ctx, c.spec, strings.NewReader(c.data), localstore.AddOptions{})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want, err := pathinfo.FromCA(storepath.DefaultDir, c.spec.Name,
			storepath.ContentAddress{Method: c.spec.Method, Hash: nixhash.Of(c.spec.Algo, c.hashed)}, storepath.References{})
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		err = w.store.Dump(w.ctx, info.Path, &got)
		if info.Path != want.Path || info.NarHash != nixhash.Of(nixhash.SHA256, string(c.nar)) || err != nil || !bytes.Equal(got.Bytes(), c.nar) {
			t.Errorf("%s: %+v, %q, %v", c.name, info, got.String(), err)
		}
	}
	_, err := w.store.AddDump(w.ctx, localstore.DumpSpec{Name: "x", Method: storepath.MethodFlat, Algo: nixhash.SHA256, IsNAR: true}, &dir, localstore.AddOptions{})
	if err == nil {
		t.Error("a directory was taken for a file")
	}
}

// warnings keeps messages.
type warnings struct {
	activity.Discard
	texts []string
}

func (w *warnings) Message(_ activity.Level, text string) { w.texts = append(w.texts, text) }

// TestDerivation adds one under a name that is not its own.
func TestDerivation(t *testing.T) {
	w := newWorld(t)
	drv := &derivation.Derivation{BasicDerivation: derivation.BasicDerivation{
		Name: "d", Platform: "p", Builder: "/b", Env: map[string]string{"out": ""},
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.Deferred}},
	}}
	text, err := drv.ATerm(storepath.DefaultDir)
	if err != nil {
		t.Fatal(err)
	}
	own, err := drv.Path(storepath.DefaultDir)
	if err != nil {
		t.Fatal(err)
	}
	info, data := w.path("d.drv", text)
	log := &warnings{}
	o := believed
	o.Log = log
	if err := w.store.AddNAR(w.ctx, info, bytes.NewReader(data), o); err != nil {
		t.Fatal(err)
	}
	if len(log.texts) != 1 || !strings.HasSuffix(log.texts[0], "back compat supporting `addToStore` for inserting derivations in dummy store") {
		t.Errorf("warned %q", log.texts)
	}
	if valid, _ := w.store.IsValid(w.ctx, info.Path); valid {
		t.Error("it is valid under the other name")
	}
	got, err := w.store.ReadDerivation(w.ctx, own)
	if err != nil || got.Builder != "/b" {
		t.Errorf("read: %+v, %v", got, err)
	}
	made, err := w.store.PathInfo(w.ctx, own)
	if err != nil || made.NarHash != info.NarHash || made.CA.Method != storepath.MethodText {
		t.Errorf("info: %+v, %v", made, err)
	}
	_, err = w.store.ReadDerivation(w.ctx, info.Path)
	w.refused(err, "derivation '/nix/store/"+info.Path.Base()+"' is not valid")
	bad, data := w.path("e.drv", "no derivation")
	if err := w.store.AddNAR(w.ctx, bad, bytes.NewReader(data), believed); err == nil {
		t.Error("what is no derivation was taken for one")
	}
}

// TestBounds fills the store in each way, and finds that what did not fit takes nothing.
func TestBounds(t *testing.T) {
	w := newWorld(t)
	big := strings.Repeat("x", room)
	info, data := w.path("big", big)
	for name, add := range map[string]func() error{
		"archive": func() error { return w.store.AddNAR(w.ctx, info, bytes.NewReader(data), believed) },
		"dump": func() error {
			_, err := w.store.AddDump(w.ctx, localstore.DumpSpec{Name: "x", Method: storepath.MethodFlat, Algo: nixhash.SHA256}, strings.NewReader(big), localstore.AddOptions{})
			return err
		},
		"contents": func() error { // fits once, not twice
			_, err := w.store.AddDump(w.ctx, localstore.DumpSpec{Name: "x", Method: storepath.MethodFlat, Algo: nixhash.SHA256}, strings.NewReader(big[:room*2/3]), localstore.AddOptions{})
			return err
		},
	} {
		if err := add(); !errors.Is(err, wire.ErrMemory) || w.memory.left != room {
			t.Errorf("%s: %v, %d bytes are kept", name, err, room-w.memory.left)
		}
	}
	var err error
	for i := 0; err == nil && i < room; i++ {
		r := &pathinfo.Realisation{ID: pathinfo.DrvOutput{Output: strings.Repeat("o", i)}}
		err = w.store.RegisterRealisation(w.ctx, r)
	}
	if !errors.Is(err, wire.ErrMemory) {
		t.Errorf("realisations: %v", err)
	}
	own := New(Options{Dir: storepath.DefaultDir})
	if err := errors.Join(own.charge(maxContents), own.charge(1)); !errors.Is(err, errFull) {
		t.Errorf("without a ledger: %v", err)
	}
}

func TestRealisations(t *testing.T) {
	w := newWorld(t)
	r := &pathinfo.Realisation{ID: pathinfo.DrvOutput{DrvHash: nixhash.Of(nixhash.SHA256, "d"), Output: "out"}}
	if err := w.store.RegisterRealisation(w.ctx, r); err != nil {
		t.Fatal(err)
	}
	got, err := w.store.QueryRealisation(w.ctx, r.ID)
	other, otherErr := w.store.QueryRealisation(w.ctx, pathinfo.DrvOutput{DrvHash: r.ID.DrvHash, Output: "dev"})
	if got != r || other != nil || err != nil || otherErr != nil {
		t.Errorf("%v, %v, %v, %v", got, err, other, otherErr)
	}
}

// TestSubstituted asks for paths that are not there.
func TestSubstituted(t *testing.T) {
	w := newWorld(t)
	info, data := w.path("x", "x")
	sess := &session.Session{User: "u"}
	var asked []string
	w.store.o.Substitute = func(_ context.Context, s *session.Session, _ []storepath.Path) error {
		asked = append(asked, s.User)
		w.add(info, data)
		return nil
	}
	w.store.Follow(sess)
	valid, err := w.store.SubstituteValidPaths(w.ctx, []storepath.Path{info.Path})
	if diff := cmp.Diff([]string{"u"}, asked); diff != "" || err != nil || len(valid) != 1 {
		t.Errorf("%v, %v\n%s", valid, err, diff)
	}
}
