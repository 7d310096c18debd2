package localstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

func TestForeignChangesAreSeen(t *testing.T) {
	o := testOptions(t)
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	other, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for i := range 20 {
		spec := DumpSpec{Name: "x", Method: storepath.MethodText, Algo: nixhash.SHA256}
		info, err := other.AddDump(ctx, spec, strings.NewReader(fmt.Sprint(i)), AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if valid, err := s.IsValid(ctx, info.Path); !valid || err != nil {
			t.Fatal("not seen", err)
		}
		if _, err := s.PathInfo(ctx, info.Path); err != nil {
			t.Fatal(err)
		}
		if err := other.AddSignatures(ctx, info.Path, []pathinfo.Signature{"key:AAAA"}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.PathInfo(ctx, info.Path); err != nil || len(got.Sigs) != 1 {
			t.Fatal("the signature was not seen", err)
		}
		if _, err := other.DeletePath(ctx, info.Path); err != nil {
			t.Fatal(err)
		}
		if valid, err := s.IsValid(ctx, info.Path); valid || err != nil {
			t.Fatal("still valid", err)
		}
		if found, err := s.ValidPaths(ctx, []storepath.Path{info.Path}); len(found) != 0 || err != nil {
			t.Fatal(found, err)
		}
	}
}

// TestCacheUnderWriters: readers never see less than what a writer's return has promised.
func TestCacheUnderWriters(t *testing.T) {
	s := open(t, func(o *Options) { o.PathInfoCacheSize = 100 })
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := range 50 {
				text := fmt.Sprintf("%d-%d", w, i)
				spec := DumpSpec{Name: "x", Method: storepath.MethodText, Algo: nixhash.SHA256}
				info, err := s.AddDump(ctx, spec, strings.NewReader(text), AddOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				if valid, _ := s.IsValid(ctx, info.Path); !valid {
					t.Errorf("%s is not valid", text)
				}
				if i%3 != 0 {
					continue
				}
				s.Invalidate(ctx, info.Path)
				if got, err := s.PathInfo(ctx, info.Path); !errors.As(err, new(*NotValidError)) {
					t.Errorf("%s is still known: %v, %v", text, got, err)
				}
			}
		})
	}
	group.Wait()
}

func TestInfoCacheRefusesOldAnswers(t *testing.T) {
	generation := uint64(1)
	c := newInfoCache(1000, func() uint64 { return generation })
	p := mustPath(t, "x")
	_, known, before := c.get(p)
	if known {
		t.Fatal("knows what nobody said")
	}
	c.begin(p)
	_, _, during := c.get(p)
	c.end(p, true)
	c.put(p, before, cached{})
	c.put(p, during, cached{})
	if v, known, _ := c.get(p); !known || !v.valid {
		t.Error("an answer from before the change came after it")
	}
	generation++
	_, known, fresh := c.get(p)
	if known {
		t.Error("remembers what another process may have changed")
	}
	generation++
	c.put(p, fresh, cached{})
	if _, known, _ := c.get(p); known {
		t.Error("took an answer from before a foreign change")
	}
}

func TestInfoCacheForgetsWhatTwoChange(t *testing.T) {
	c := newInfoCache(1000, func() uint64 { return 0 })
	p := mustPath(t, "x")
	c.begin(p)
	c.begin(p)
	c.end(p, false)
	c.begin(p)
	c.endAs(p, &cached{valid: true})
	c.endAs(p, &cached{valid: true})
	if _, known, _ := c.get(p); known {
		t.Error("believes one of several that changed the path at the same time")
	}
	c.begin(p)
	c.endAs(p, &cached{valid: true})
	if v, known, _ := c.get(p); !known || !v.valid {
		t.Error("does not believe who changed the path alone")
	}
}

// TestRegisteredPathIsKnown compares what is remembered of a path with what the database says.
func TestRegisteredPathIsKnown(t *testing.T) {
	s := open(t, nil)
	a := addText(t, s, "a", "hello")
	h := s.acquire()
	defer h.release()
	v, known, _ := h.cache.get(a.Path)
	if !known || v.info == nil {
		t.Fatal("what was registered is not remembered")
	}
	row, _, err := h.db.QueryPath(ctx, s.Dir().Print(a.Path))
	if err != nil {
		t.Fatal(err)
	}
	want, err := s.fromRow(a.Path, &row)
	if got, want := fmt.Sprintf("%+v", v.info), fmt.Sprintf("%+v", want); got != want || err != nil {
		t.Errorf("remembers %s, want %s: %v", got, want, err)
	}
	again := *a
	again.Ultimate = !again.Ultimate
	if err := s.Register(ctx, []*pathinfo.Info{&again}); err != nil {
		t.Fatal(err)
	}
	if v, _, _ := h.cache.get(a.Path); v.info != nil {
		t.Error("an update is taken for all there is to know")
	}
	if info, err := s.PathInfo(ctx, a.Path); err != nil || info.Ultimate != again.Ultimate {
		t.Errorf("after the update: %+v, %v", info, err)
	}
}

func TestInfoCacheIsBounded(t *testing.T) {
	c := newInfoCache(640, func() uint64 { return 0 })
	for i := range 10000 {
		hash := nixhash.Of(nixhash.SHA256, fmt.Sprint(i))
		p, _ := storepath.New([20]byte(hash.Compress(20)), "x")
		_, _, ticket := c.get(p)
		c.put(p, ticket, cached{})
	}
	total := 0
	for i := range c.shards {
		total += len(c.shards[i].young) + len(c.shards[i].old)
	}
	if total > 640+cacheShards {
		t.Errorf("holds %d", total)
	}
}

// TestRefresh: the database, or everything, is deleted while the store is open.
func TestRefresh(t *testing.T) {
	for name, remove := range map[string]func(o *Options) []string{
		"nothing":         func(*Options) []string { return nil },
		"database files":  func(o *Options) []string { return []string{o.dbDir()} },
		"state":           func(o *Options) []string { return []string{o.StateDir} },
		"store and state": func(o *Options) []string { return []string{o.RealDir, o.StateDir} },
		"links":           func(o *Options) []string { return []string{o.linksDir()} },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, nil)
			info := addText(t, s, "a", "hello")
			roots := s.NewTempRoots()
			defer roots.Close()
			if err := roots.Add(ctx, info.Path); err != nil {
				t.Fatal(err)
			}
			gone := remove(&s.opts)
			for _, dir := range gone {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Refresh(ctx); err != nil {
				t.Fatal(err)
			}
			valid, err := s.IsValid(ctx, info.Path)
			if want := len(gone) == 0 || name == "links"; valid != want || err != nil {
				t.Errorf("valid: %v, %v", valid, err)
			}
			addText(t, s, "b", "again")
			if err := roots.Add(ctx, mustPath(t, "more")); err != nil {
				t.Error(err)
			}
			if all, err := s.TempRootPaths(); len(all) != 2 || err != nil {
				t.Error(all, err)
			}
			if files := tempRootFiles(t, s); len(files) != 1 {
				t.Error(files)
			}
			for _, dir := range []string{"profiles/per-user", "gcroots/per-user", "temproots", "db"} {
				if _, err := os.Stat(filepath.Join(s.StateDir(), dir)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestRefreshUnderLoad: what runs meanwhile ends, well or with an error.
func TestRefreshUnderLoad(t *testing.T) {
	s := open(t, nil)
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				spec := DumpSpec{Name: "x", Method: storepath.MethodText, Algo: nixhash.SHA256}
				s.AddDump(ctx, spec, strings.NewReader(fmt.Sprint(w, i)), AddOptions{})
			}
		})
	}
	for range 10 {
		os.RemoveAll(s.opts.dbDir())
		if err := s.Refresh(ctx); err != nil {
			t.Error(err)
		}
	}
	stop()
	group.Wait()
	addText(t, s, "last", "text")
}

func TestClosure(t *testing.T) {
	s := open(t, nil)
	a := addText(t, s, "a", "a").Path
	b := addText(t, s, "b", "b", a).Path
	c := addText(t, s, "c", "c", b).Path
	d := addText(t, s, "d", "d").Path
	for _, tc := range []struct {
		start []storepath.Path
		o     ClosureOptions
		want  []storepath.Path
	}{
		{[]storepath.Path{c}, ClosureOptions{}, []storepath.Path{a, b, c}},
		{[]storepath.Path{b, d}, ClosureOptions{}, []storepath.Path{a, b, d}},
		{[]storepath.Path{a}, ClosureOptions{Referrers: true}, []storepath.Path{a, b, c}},
		{nil, ClosureOptions{}, nil},
	} {
		got, err := s.Closure(ctx, tc.start, tc.o)
		if err != nil || !slices.Equal(got, storepath.SortUnique(tc.want)) {
			t.Errorf("closure of %v: %v, %v", tc.start, got, err)
		}
	}
	if _, err := s.Closure(ctx, []storepath.Path{mustPath(t, "x")}, ClosureOptions{}); !errors.As(err, new(*NotValidError)) {
		t.Error(err)
	}
}

// testDerivation is one without inputs, as text, and its output's path.
func testDerivation(t *testing.T, s *Store, name string) (string, storepath.Path) {
	t.Helper()
	drv := &derivation.Derivation{BasicDerivation: derivation.BasicDerivation{
		Name: name, Platform: "x86_64-linux", Builder: "/bin/sh", Args: []string{"-c", "echo"},
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.Deferred}},
		Env:     map[string]string{"out": ""},
	}}
	hasher := derivation.Hasher{Dir: s.Dir()}
	if err := hasher.FillOutputPaths(ctx, drv); err != nil {
		t.Fatal(err)
	}
	text, err := drv.ATerm(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	return text, drv.Outputs["out"].Path
}

func TestDerivations(t *testing.T) {
	s := open(t, nil)
	text, out := testDerivation(t, s, "hello")
	info := addText(t, s, "hello.drv", text)
	outputs, err := s.DerivationOutputs(ctx, info.Path)
	if err != nil || len(outputs) != 1 || outputs["out"] != out {
		t.Error(outputs, err)
	}
	if derivers, err := s.ValidDerivers(ctx, out); err != nil || !slices.Equal(derivers, []storepath.Path{info.Path}) {
		t.Error(derivers, err)
	}
	first, err := s.ReadDerivation(ctx, info.Path)
	if err != nil || first.Name != "hello" {
		t.Fatal(first, err)
	}
	if second, err := s.ReadDerivation(ctx, info.Path); second != first || err != nil {
		t.Error("was read twice", err)
	}
	output := fileArchive(t, "made", false)
	made := &pathinfo.Info{Path: out, Deriver: info.Path, NarHash: nixhash.Of(nixhash.SHA256, string(output)), NarSize: uint64(len(output))}
	if err := s.AddNAR(ctx, made, strings.NewReader(string(output)), AddOptions{}); err != nil {
		t.Fatal(err)
	}
	both := storepath.SortUnique([]storepath.Path{info.Path, out})
	for _, tc := range []struct {
		start storepath.Path
		o     ClosureOptions
	}{
		{info.Path, ClosureOptions{IncludeOutputs: true}}, {out, ClosureOptions{IncludeDerivers: true}},
		{out, ClosureOptions{Referrers: true, IncludeOutputs: true}}, {info.Path, ClosureOptions{Referrers: true, IncludeDerivers: true}},
	} {
		if got, err := s.Closure(ctx, []storepath.Path{tc.start}, tc.o); err != nil || !slices.Equal(got, both) {
			t.Errorf("%+v: %v, %v", tc.o, got, err)
		}
	}
	if _, err := s.DeletePath(ctx, info.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadDerivation(ctx, info.Path); !errors.As(err, new(*NotValidError)) {
		t.Error("is read after it was deleted", err)
	}
	if _, err := s.DerivationOutputs(ctx, info.Path); !errors.As(err, new(*NotValidError)) {
		t.Error(err)
	}
	if _, err := s.ReadDerivation(ctx, out); err == nil || !strings.HasSuffix(err.Error(), "is not a valid derivation path") {
		t.Error(err)
	}
}

func TestWrongDerivationIsRefused(t *testing.T) {
	s := open(t, nil)
	text, out := testDerivation(t, s, "hello")
	wrong := strings.ReplaceAll(text, out.Base(), mustPath(t, "hello").Base())
	spec := DumpSpec{Name: "hello.drv", Method: storepath.MethodText, Algo: nixhash.SHA256}
	_, err := s.AddDump(ctx, spec, strings.NewReader(wrong), AddOptions{})
	want := fmt.Sprintf("derivation has incorrect output '%s', should be '%s'", s.Dir().Print(mustPath(t, "hello")), s.Dir().Print(out))
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	data := fileArchive(t, wrong, false)
	info := narInfo(t, s, "hello.drv", data)
	im := s.NewImport(AddOptions{})
	err = errors.Join(im.Add(ctx, info, strings.NewReader(string(data))), im.Flush(ctx))
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	im.Close()
	if all, err := s.AllValidPaths(ctx); len(all) != 0 || err != nil {
		t.Error(all, err)
	}
}

func TestRegisterRefusesCycles(t *testing.T) {
	s := open(t, nil)
	paths := storepath.SortUnique([]storepath.Path{mustPath(t, "a"), mustPath(t, "b"), mustPath(t, "c")})
	hash := nixhash.Of(nixhash.SHA256, "x")
	infos := make([]*pathinfo.Info, len(paths))
	for i, p := range paths {
		infos[i] = &pathinfo.Info{Path: p, NarHash: hash, NarSize: 1, References: []storepath.Path{paths[(i+1)%3]}}
	}
	err := s.Register(ctx, infos)
	want := fmt.Sprintf("cycle detected in the references of '%s' from '%s'", s.Dir().Print(paths[0]), s.Dir().Print(paths[2]))
	if err == nil || err.Error() != want || !errors.As(err, new(*CycleError)) {
		t.Errorf("got %v, want %s", err, want)
	}
	infos[2].References = []storepath.Path{paths[2]}
	if err := s.Register(ctx, infos); err != nil {
		t.Error(err)
	}
}

func TestRegisterUpdates(t *testing.T) {
	s := open(t, nil)
	info := addText(t, s, "a", "a")
	deriver := mustPath(t, "d.drv")
	changed := *info
	changed.Deriver, changed.RegistrationTime, changed.Ultimate, changed.Sigs = deriver, 1, true, []pathinfo.Signature{"k:AAAA"}
	if err := s.Register(ctx, []*pathinfo.Info{&changed}); err != nil {
		t.Fatal(err)
	}
	got, err := s.PathInfo(ctx, info.Path)
	if err != nil || !got.Ultimate || len(got.Sigs) != 1 || !got.Deriver.IsZero() || got.RegistrationTime == 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestPathFromHashPart(t *testing.T) {
	s := open(t, nil)
	info := addText(t, s, "a", "a")
	if got, err := s.PathFromHashPart(ctx, info.Path.HashPart()); got != info.Path || err != nil {
		t.Error(got, err)
	}
	if got, err := s.PathFromHashPart(ctx, strings.Repeat("0", 32)); !got.IsZero() || err != nil {
		t.Error(got, err)
	}
	if _, err := s.PathFromHashPart(ctx, "short"); err == nil || err.Error() != "invalid hash part" {
		t.Error(err)
	}
}

func TestDeletePathInUse(t *testing.T) {
	s := open(t, nil)
	a := addText(t, s, "a", "a")
	b := addText(t, s, "b", "b", a.Path)
	_, err := s.DeletePath(ctx, a.Path)
	want := fmt.Sprintf("cannot delete path '%s' because it is in use by '%s'", s.Dir().Print(a.Path), s.Dir().Print(b.Path))
	if err == nil || err.Error() != want || !errors.As(err, new(*InUseError)) {
		t.Errorf("got %v, want %s", err, want)
	}
	if n, err := s.InvalidateAll(ctx, []storepath.Path{b.Path, a.Path, mustPath(t, "x")}); n != 2 || err != nil {
		t.Error(n, err)
	}
}

func TestBuildLogs(t *testing.T) {
	s := open(t, nil)
	for i, text := range []string{"", "short\n", strings.Repeat("a long line of a long log\n", 20000)} {
		for _, compress := range []bool{true, false} {
			drv := mustPath(t, fmt.Sprintf("%d-%v.drv", i, compress))
			if _, ok := s.BuildLogPath(drv); ok {
				t.Error("there is a log already")
			}
			for range 2 { // the second one replaces the first
				w, err := s.BuildLogs().Create(drv, compress)
				if err != nil {
					t.Fatal(err)
				}
				for rest := text; rest != ""; {
					n := min(len(rest), 777)
					if _, err := io.WriteString(w, rest[:n]); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
			}
			want := filepath.Join(s.LogDir(), "drvs", drv.Base()[:2], drv.Base()[2:])
			if compress {
				want += ".bz2"
			}
			if path, ok := s.BuildLogPath(drv); path != want || !ok {
				t.Errorf("log is at %s, not %s", path, want)
			}
			checkLog(t, s, drv, text)
		}
	}
	drv := mustPath(t, "added.drv")
	for _, text := range []string{"first", "second, which comes too late"} {
		if err := s.AddBuildLog(ctx, drv, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	checkLog(t, s, drv, "first")
	if err := s.AddBuildLog(ctx, mustPath(t, "failed.drv"), &failingReader{}); err == nil {
		t.Error("a log that could not be read was added")
	}
	if _, err := s.OpenBuildLog(mustPath(t, "failed.drv")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	flat := mustPath(t, "flat.drv")
	os.WriteFile(filepath.Join(s.LogDir(), "drvs", flat.Base()), []byte("old"), 0o644)
	checkLog(t, s, flat, "old")
}

func checkLog(t *testing.T, s *Store, drv storepath.Path, want string) {
	t.Helper()
	r, err := s.OpenBuildLog(drv)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); string(got) != want || err != nil {
		t.Errorf("log of %d bytes, not %d: %v", len(got), len(want), err)
	}
}

func TestRealisations(t *testing.T) {
	s := open(t, func(o *Options) { o.CADerivations = true })
	out := addText(t, s, "out", "out").Path
	byHash := pathinfo.DrvOutput{DrvHash: nixhash.Of(nixhash.SHA256, "drv"), Output: "out"}
	byPath := pathinfo.DrvOutput{DrvPath: mustPath(t, "x.drv"), Output: "out"}
	both := pathinfo.DrvOutput{DrvHash: byHash.DrvHash, DrvPath: byPath.DrvPath, Output: "dev"}
	for _, id := range []pathinfo.DrvOutput{byHash, byPath, both} {
		if r, err := s.QueryRealisation(ctx, id); r != nil || err != nil {
			t.Fatal(r, err)
		}
		for _, sig := range []pathinfo.Signature{"a:AAAA", "b:AAAA", "a:AAAA"} {
			if err := s.RegisterRealisation(ctx, &pathinfo.Realisation{ID: id, OutPath: out, Sigs: []pathinfo.Signature{sig}}); err != nil {
				t.Fatal(err)
			}
		}
		r, err := s.QueryRealisation(ctx, id)
		if err != nil || r.OutPath != out || r.ID != id || !slices.Equal(r.Sigs, []pathinfo.Signature{"a:AAAA", "b:AAAA"}) {
			t.Errorf("%+v, %v", r, err)
		}
		other := addText(t, s, "other", "other").Path
		err = s.RegisterRealisation(ctx, &pathinfo.Realisation{ID: id, OutPath: other})
		if !errors.As(err, new(*RealisationConflictError)) {
			t.Error(err)
		}
	}
	err := s.RegisterRealisation(ctx, &pathinfo.Realisation{ID: byHash, OutPath: mustPath(t, "x")})
	want := fmt.Sprintf("Trying to register a realisation of '%s', but we already have another one locally.\nLocal:  %s\nRemote: %s",
		byHash.HashID(), s.Dir().Print(out), s.Dir().Print(mustPath(t, "x")))
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	for _, key := range []pathinfo.DrvOutput{{DrvHash: both.DrvHash, Output: "dev"}, {DrvPath: both.DrvPath, Output: "dev"}} {
		if r, err := s.QueryRealisation(ctx, key); r == nil || err != nil {
			t.Error("not found by one of its keys", err)
		}
	}
	if err := s.RegisterRealisation(ctx, &pathinfo.Realisation{OutPath: out}); err == nil {
		t.Error("a realisation of nothing was registered")
	}
}

// A replaced tree takes the old name of what replaces it; a free name is just taken.
func TestReplace(t *testing.T) {
	s := open(t, func(o *Options) { o.SyncEvery = time.Hour })
	text := func(p string) string {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	old, better := s.RealPath(addText(t, s, "old", "old").Path), s.RealDir()+"/better"
	if err := os.WriteFile(better, []byte("better"), 0o444); err != nil {
		t.Fatal(err)
	}
	if swapped, err := s.Replace(better, old); err != nil || !swapped || text(old) != "better" || text(better) != "old" {
		t.Errorf("swapped %v, %v", swapped, err)
	}
	free := s.RealDir() + "/free"
	if swapped, err := s.Replace(better, free); err != nil || swapped || text(free) != "old" {
		t.Errorf("free name: swapped %v, %v", swapped, err)
	}
	if _, err := s.Replace(better, old); err == nil || text(old) != "better" {
		t.Errorf("with nothing: %v", err)
	}
}

// An output that was collected may come out differently when it is built again.
func TestRealisationOfCollected(t *testing.T) {
	s := open(t, func(o *Options) { o.CADerivations = true })
	id := pathinfo.DrvOutput{DrvHash: nixhash.Of(nixhash.SHA256, "drv"), DrvPath: mustPath(t, "x.drv"), Output: "out"}
	first, second := addText(t, s, "out", "first").Path, addText(t, s, "out", "second").Path
	if err := s.RegisterRealisation(ctx, &pathinfo.Realisation{ID: id, OutPath: first, Sigs: []pathinfo.Signature{"a:AAAA"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.RegisterRealisation(ctx, &pathinfo.Realisation{ID: id, OutPath: second}); !errors.As(err, new(*RealisationConflictError)) {
		t.Fatalf("with the first there: %v", err)
	}
	if _, err := s.Invalidate(ctx, first); err != nil {
		t.Fatal(err)
	}
	if err := s.RegisterRealisation(ctx, &pathinfo.Realisation{ID: id, OutPath: second}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []pathinfo.DrvOutput{{DrvHash: id.DrvHash, Output: "out"}, {DrvPath: id.DrvPath, Output: "out"}} {
		if r, err := s.QueryRealisation(ctx, key); err != nil || r == nil || r.OutPath != second || len(r.Sigs) != 0 {
			t.Errorf("got %+v, %v", r, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	o := testOptions(t)
	parent := filepath.Dir(string(o.StoreDir))
	os.Mkdir(filepath.Join(parent, "elsewhere"), 0o755)
	os.Symlink(filepath.Join(parent, "elsewhere"), string(o.StoreDir))
	_, err := Open(ctx, o)
	want := fmt.Sprintf("the path \"%s\" is a symlink; this is not allowed for the Nix store and its parent directories", o.StoreDir)
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	o.AllowSymlinked = true
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	addText(t, s, "a", "a")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenGivesTheStoreToItsGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving files away takes root")
	}
	var said []string
	s := open(t, func(o *Options) { o.BuildUsersGroup = "daemon" })
	st, err := os.Stat(s.RealDir())
	if err != nil || st.Mode() != os.ModeDir|os.ModeSticky|0o775 {
		t.Error(st.Mode(), err)
	}
	open(t, func(o *Options) {
		o.BuildUsersGroup = "no-such-group"
		o.Log = func(_ activity.Level, text string) { said = append(said, text) }
	})
	if want := "warning: the group 'no-such-group' specified in 'build-users-group' does not exist"; !slices.Contains(said, want) {
		t.Errorf("said %q", said)
	}
}
