package substitute

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

func TestSubstitute(t *testing.T) {
	w := newWorld(t)
	lib := w.cache.add("lib", "a library", nil, nil)
	app := w.cache.add("app", "a program", []storepath.Path{lib}, nil)
	sess, log := w.session(1, w.cache.uri())
	for _, p := range []storepath.Path{lib, app} {
		if err := w.take(sess, p); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(w.store.RealPath(app))
	info, err2 := w.store.PathInfo(w.ctx, app)
	if err != nil || err2 != nil || string(data) != "a program" || !slices.Equal(info.References, []storepath.Path{lib}) || len(info.Sigs) != 1 || info.Ultimate {
		t.Errorf("contents %q, %v; known as %+v, %v", data, err, info, err2)
	}
	dir := string(w.store.Dir())
	want := strings.NewReplacer("LIB", dir+"/"+lib.Base(), "APP", dir+"/"+app.Base(), "URI", w.cache.uri()).Replace(`start 109 querying info about 'LIB' on 'URI'
stop 109
start 108
start 108/100 copying path 'LIB' from 'URI'
result 108/100 105 128/128
stop 108/100
stop 108
start 109 querying info about 'APP' on 'URI'
stop 109
start 108
start 108/100 copying path 'APP' from 'URI'
result 108/100 105 128/128
stop 108/100
stop 108`)
	if got := log.text(); got != want {
		t.Errorf("told\n%s\nwant\n%s", got, want)
	}
}

// TestWrong is what caches must not get away with: each leaves nothing in the store.
func TestWrong(t *testing.T) {
	other := secretKey(t, "mallory")
	for name, test := range map[string]struct {
		change  func(*narinfo.NarInfo, *[]byte)
		params  string
		want    string // in the error or in what is told
		nowhere bool   // nothing is downloaded
	}{
		"unsigned": {change: func(n *narinfo.NarInfo, _ *[]byte) { n.Sigs = nil }, nowhere: true,
			want: "as it's not signed by any of the keys in 'trusted-public-keys'"},
		"signed by somebody else": {change: func(n *narinfo.NarInfo, _ *[]byte) { n.Sigs = nil; _ = n.Sign("/x", other) }, nowhere: true,
			want: "as it's not signed by any of the keys in 'trusted-public-keys'"},
		"other references than signed": {change: func(n *narinfo.NarInfo, _ *[]byte) { n.References = []storepath.Path{n.Path} }, nowhere: true,
			want: "as it's not signed by any of the keys in 'trusted-public-keys'"},
		"other contents": {change: func(_ *narinfo.NarInfo, data *[]byte) { (*data)[96] ^= 1 }, want: "hash mismatch importing path"},
		"no archive":     {change: func(_ *narinfo.NarInfo, data *[]byte) { (*data)[8] ^= 1 }, want: "bad archive"},
		"other size": {change: func(n *narinfo.NarInfo, _ *[]byte) { n.NarSize++ }, params: "?trusted=1",
			want: "size mismatch importing path"},
		"truncated": {change: func(_ *narinfo.NarInfo, data *[]byte) { *data = (*data)[:100] }, want: "is incomplete"},
		"empty":     {change: func(_ *narinfo.NarInfo, data *[]byte) { *data = nil }, want: "is incomplete"},
		"endless": {change: func(_ *narinfo.NarInfo, data *[]byte) { *data = nartest.File(strings.Repeat("x", 4<<20)) },
			want: "is larger than it should be"},
		"not compressed as it says": {change: func(n *narinfo.NarInfo, _ *[]byte) { n.Compression = "xz" }, want: "input compression not recognized"},
		"compressed as nobody can":  {change: func(n *narinfo.NarInfo, _ *[]byte) { n.Compression = "squeeze" }, want: "squeeze"},
		"outside of the cache":      {change: func(n *narinfo.NarInfo, _ *[]byte) { n.URL = "../nar" }, want: "must not contain '..' or '.' segments"},
		"gone":                      {change: func(n *narinfo.NarInfo, _ *[]byte) { n.URL = "nar/../../else" }, want: "must not contain"},
		"claims to be content-addressed": {change: func(n *narinfo.NarInfo, _ *[]byte) {
			n.Sigs = nil
			n.CA = storepath.ContentAddress{Method: storepath.MethodNAR, Hash: n.NarHash}
		}, nowhere: true, want: "as it's not signed by any of the keys"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.cache.add("bad", "some contents that are long enough to be changed", nil, test.change)
			sess, log := w.session(1, w.cache.uri()+test.params)
			err := w.take(sess, p)
			if err == nil || !strings.Contains(err.Error()+log.text(), test.want) {
				t.Errorf("error %v, told\n%s\nwant %q", err, log.text(), test.want)
			}
			if w.valid(p) {
				t.Error("it is valid")
			}
			if left := w.leftovers(); len(left) > 0 {
				t.Errorf("left %q", left)
			}
			if n := w.calls.count("nar/"); test.nowhere && n > 0 {
				t.Errorf("downloaded %d times", n)
			}
		})
	}
}

func TestTrusted(t *testing.T) {
	w := newWorld(t)
	p := w.cache.add("a", "a", nil, func(n *narinfo.NarInfo, _ *[]byte) { n.Sigs = nil })
	sess, _ := w.session(1, w.cache.uri()+"?trusted=true")
	if err := w.take(sess, p); err != nil || !w.valid(p) {
		t.Error(err)
	}
}

// TestContentAddressed takes what proves itself, also from a store with another directory.
func TestContentAddressed(t *testing.T) {
	for name, dir := range map[string]storepath.Dir{"same directory": "", "other directory": "/somewhere/else"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			here := w.store.Dir()
			there := here
			if dir != "" {
				there = dir
			}
			var p storepath.Path
			var ca storepath.ContentAddress
			w.cache.store = there
			w.cache.add("a", "self-evident", nil, func(n *narinfo.NarInfo, _ *[]byte) {
				ca = storepath.ContentAddress{Method: storepath.MethodNAR, Hash: n.NarHash}
				info, err := pathinfo.FromCA(there, "a", ca, storepath.References{})
				own, err2 := pathinfo.FromCA(here, "a", ca, storepath.References{})
				if err != nil || err2 != nil {
					t.Fatal(err, err2)
				}
				p = own.Path
				n.Sigs, n.Path, n.CA = nil, info.Path, ca
				w.cache.write(n.Path.HashPart()+".narinfo", n.Format(there))
			})
			sess, log := w.session(1, w.cache.uri()+"?store="+string(there))
			o, err := w.subst.Find(w.ctx, sess, p, ca, nil)
			if err != nil || o == nil || o.Info.Path != p {
				t.Fatalf("offer %+v, %v\n%s", o, err, log.text())
			}
			if err := w.subst.Fetch(w.ctx, sess, o, false); err != nil || !w.valid(p) {
				t.Error(err)
			}
			// Without the address nobody knows what another store calls it.
			o, err = w.subst.Look(w.ctx, sess, p, storepath.ContentAddress{})
			if err != nil || (o == nil) != (dir != "") {
				t.Errorf("looked up: %+v, %v", o, err)
			}
		})
	}
}

// TestOrder asks by priority, goes on after failures, and tells of all but the last.
func TestOrder(t *testing.T) {
	w := newWorld(t)
	first, second := w.cache, w.cache
	first.dir, second.dir = filepath.Join(t.TempDir(), "1"), filepath.Join(t.TempDir(), "2")
	p := first.add("a", "a", nil, nil)
	second.add("a", "a", nil, nil)
	sess, _ := w.session(1, second.uri(), first.uri()+"?priority=-1", second.uri(), "dummy://?priority=-2")
	o, err := w.subst.Find(w.ctx, sess, p, storepath.ContentAddress{}, nil)
	if err != nil || o.source.URI() != first.uri() {
		t.Fatalf("found %+v, %v", o, err)
	}
	o, err = w.subst.Find(w.ctx, sess, p, storepath.ContentAddress{}, o)
	if err != nil || o.source.URI() != second.uri() {
		t.Fatalf("found behind it %+v, %v", o, err)
	}
	if o, err = w.subst.Find(w.ctx, sess, p, storepath.ContentAddress{}, o); err != nil || o != nil {
		t.Errorf("behind all: %+v, %v", o, err)
	}

	first.write(p.HashPart()+".narinfo", "nonsense")
	sess, log := w.session(2, first.uri(), second.uri(), "nowhere://x")
	if err := w.take(sess, p); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"0: error: NAR info file '" + p.HashPart() + ".narinfo' is corrupt: expecting ':' at line 1",
		"1: warning: don't know how to open Nix store with scheme 'nowhere'"} {
		if strings.Count(log.text(), want) != 1 {
			t.Errorf("told\n%s\nwant once %s", log.text(), want)
		}
	}
	sess, log = w.session(3, first.uri())
	if _, err := w.subst.Find(w.ctx, sess, p, storepath.ContentAddress{}, nil); err == nil || strings.Contains(log.text(), "corrupt") {
		t.Errorf("the last store's failure: %v, told\n%s", err, log.text())
	}
	if _, err := w.subst.Look(w.ctx, sess, p, storepath.ContentAddress{}); err == nil {
		t.Error("a failure was kept back")
	}
	sess.Settings.Fallback = true
	if o, err := w.subst.Look(w.ctx, sess, p, storepath.ContentAddress{}); o != nil || err != nil || !strings.Contains(log.text(), "corrupt") {
		t.Errorf("with fallback: %+v, %v", o, err)
	}
	sess.Settings.Substitute = false
	if o, err := w.subst.Look(w.ctx, sess, p, storepath.ContentAddress{}); o != nil || err != nil {
		t.Errorf("without substitution: %+v, %v", o, err)
	}
}

// TestUnopenable warns each client once of a store that cannot be opened.
func TestUnopenable(t *testing.T) {
	w := newWorld(t)
	w.cache.write("nix-cache-info", "StoreDir: /another/store\n")
	for client := range uint64(2) {
		sess, log := w.session(client, w.cache.uri())
		for range 2 {
			if err := w.take(sess, mustPath(t, "00000000000000000000000000000000-x")); err == nil {
				t.Error("found in a store of others")
			}
		}
		want := "1: warning: binary cache '" + w.cache.uri() + "' is for Nix stores with prefix '/another/store', not '" + string(w.store.Dir()) + "'"
		if strings.Count(log.text(), want) == 0 {
			t.Errorf("told\n%s\nwant %s", log.text(), want)
		}
	}
}

// TestUnopenableAgain tells each client once what is said of a store that cannot be opened, however often that is tried.
func TestUnopenableAgain(t *testing.T) {
	tried := 0
	r := newRegistry(func(_ context.Context, a Asker, _ settings.StoreReference) (Source, error) {
		tried++
		a.Log.Message(activity.Warn, fmt.Sprintf("attempt %d", tried))
		a.Log.Message(activity.Error, "left alone")
		return nil, errors.New("down")
	})
	var logs [2]recorder
	for range 2 {
		for client := range logs {
			sess := &session.Session{Client: uint64(client), Settings: &settings.Settings{Substituters: []string{"https://cache"}}, Log: &logs[client]}
			if sources, err := r.list(t.Context(), sess); err != nil || len(sources) > 0 {
				t.Fatalf("%v, %v", sources, err)
			}
			for _, o := range r.stores {
				o.retry = time.Time{}
			}
		}
	}
	for client, want := range []string{"1: attempt 1\n0: left alone\n1: warning: down\n1: attempt 3", "1: attempt 2\n0: left alone\n1: warning: down\n1: attempt 4"} {
		if got := logs[client].text(); got != want {
			t.Errorf("client %d was told\n%s\nwant\n%s", client, got, want)
		}
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}

func mustPath(t testing.TB, base string) storepath.Path {
	p, err := storepath.ParseBase(base)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestIntroduced is a directory that was none: it becomes a cache, as upstream makes it.
func TestIntroduced(t *testing.T) {
	w := newWorld(t)
	sess, log := w.session(1, w.cache.uri())
	_ = w.take(sess, mustPath(t, "00000000000000000000000000000000-x"))
	text, err := os.ReadFile(filepath.Join(w.cache.dir, "nix-cache-info"))
	if err != nil || string(text) != "StoreDir: "+string(w.store.Dir())+"\n" {
		t.Errorf("nix-cache-info %q, %v\n%s", text, err, log.text())
	}
	for _, name := range []string{"nar", "realisations", "log"} {
		if _, err := os.Stat(filepath.Join(w.cache.dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestFetchedOnce has many clients want one path. It is downloaded once, all see it, and one that leaves stops nobody.
func TestFetchedOnce(t *testing.T) {
	w := newWorld(t)
	p := w.cache.add("a", "wanted by all", nil, nil)
	w.calls.block = make(chan struct{})
	const clients = 5
	ctx, leave := context.WithCancelCause(w.ctx)
	gone := errors.New("gone")
	results := make(chan error, clients)
	var offers [clients]*Offer
	var logs [clients]*recorder
	for i := range clients {
		sess, log := w.session(uint64(i), w.cache.uri())
		o, err := w.subst.Find(w.ctx, sess, p, storepath.ContentAddress{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		offers[i], logs[i] = o, log
	}
	var wg sync.WaitGroup
	for i := range clients {
		sess, _ := w.session(uint64(i), w.cache.uri())
		sess.Log = logs[i]
		c := w.ctx
		if i == 0 {
			c = ctx
		}
		wg.Go(func() { results <- w.subst.Fetch(c, sess, offers[i], false) })
		until(t, func() bool { return strings.Contains(logs[i].text(), "copying path") })
	}
	leave(gone)
	if err := <-results; err != gone {
		t.Errorf("who left: %v", err)
	}
	close(w.calls.block)
	wg.Wait()
	for range clients - 1 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := w.calls.count("nar/"); n != 1 || !w.valid(p) {
		t.Errorf("downloaded %d times, valid %v", n, w.valid(p))
	}
	for i, log := range logs {
		text := log.text()
		if strings.Count(text, "start 108") != 2 || strings.Count(text, "stop 108") != 2 || i > 0 && !strings.Contains(text, "result 108/100 105") {
			t.Errorf("client %d was told\n%s", i, text)
		}
	}
}

// TestAbandoned is a download that nobody waits for any more: it ends and leaves nothing.
func TestAbandoned(t *testing.T) {
	w := newWorld(t)
	p := w.cache.add("a", "not wanted", nil, nil)
	w.calls.block = make(chan struct{})
	sess, log := w.session(1, w.cache.uri())
	o, err := w.subst.Find(w.ctx, sess, p, storepath.ContentAddress{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(w.ctx)
	done := make(chan error)
	go func() { done <- w.subst.Fetch(ctx, sess, o, false) }()
	until(t, func() bool { return w.calls.count("nar/") == 1 })
	leave()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.subst.fetches.close()
	if w.valid(p) || len(w.leftovers()) > 0 {
		t.Errorf("left %q, told\n%s", w.leftovers(), log.text())
	}
}

func until(t *testing.T, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !happened(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited too long")
		}
	}
}

// TestGone tells archives that were collected from other failures.
func TestGone(t *testing.T) {
	w := newWorld(t)
	p := w.cache.add("a", "a", nil, nil)
	sess, _ := w.session(1, w.cache.uri())
	if err := os.RemoveAll(filepath.Join(w.cache.dir, "nar")); err != nil {
		t.Fatal(err)
	}
	err := w.take(sess, p)
	if !errors.Is(err, ErrGone) || !strings.HasPrefix(err.Error(), "file 'nar/") || !strings.HasSuffix(err.Error(), "' does not exist in binary cache") {
		t.Error(err)
	}
}

// TestRepair replaces contents that were damaged.
func TestRepair(t *testing.T) {
	w := newWorld(t)
	p := w.cache.add("a", "as it should be", nil, nil)
	sess, _ := w.session(1, w.cache.uri())
	if err := w.take(sess, p); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.store.RealPath(p), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.store.RealPath(p), []byte("damaged"), 0); err != nil {
		t.Fatal(err)
	}
	if err := w.take(sess, p); err != nil { // it counts as valid
		t.Fatal(err)
	}
	o, err := w.subst.Find(w.ctx, sess, p, storepath.ContentAddress{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.subst.Fetch(w.ctx, sess, o, true); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(w.store.RealPath(p)); err != nil || string(data) != "as it should be" {
		t.Errorf("contents %q, %v", data, err)
	}
	if n := w.calls.count("nar/"); n != 2 {
		t.Errorf("downloaded %d times", n)
	}
}

// TestAvailable asks only those stores about many paths that want it.
func TestAvailable(t *testing.T) {
	w := newWorld(t)
	a, b := w.cache.add("a", "a", nil, nil), w.cache.add("b", "b", nil, nil)
	missing := mustPath(t, "00000000000000000000000000000000-x")
	for params, want := range map[string][]storepath.Path{"": nil, "?want-mass-query=1": storepath.SortUnique([]storepath.Path{a, b})} {
		sess, _ := w.session(1, w.cache.uri()+params)
		got, err := w.subst.Available(w.ctx, sess, []storepath.Path{a, missing, b})
		if err != nil || !slices.Equal(storepath.SortUnique(got), want) {
			t.Errorf("%q: %v, %v", params, got, err)
		}
	}
}

// TestRealisation takes what both generations write, if it is signed.
func TestRealisation(t *testing.T) {
	w := newWorld(t)
	drv := mustPath(t, "00000000000000000000000000000000-x.drv")
	out := mustPath(t, "11111111111111111111111111111111-x")
	id := pathinfo.DrvOutput{DrvHash: nixhash.Of(nixhash.SHA256, "x"), DrvPath: drv, Output: "out"}
	signed := func(sign func(*pathinfo.Realisation)) *pathinfo.Realisation {
		r := &pathinfo.Realisation{ID: id, OutPath: out}
		sign(r)
		return r
	}
	byHash := signed(func(r *pathinfo.Realisation) { r.SignByHash(w.key) })
	byPath := signed(func(r *pathinfo.Realisation) { r.SignByPath(w.key) })
	hashName, pathName := "realisations/"+id.HashID()+".doi", "build-trace-v2/"+drv.Base()+"/out.doi"
	for name, test := range map[string]struct {
		file, text, params string
		found              bool
		told               string
	}{
		"none":                  {file: "unrelated"},
		"by hash":               {file: hashName, text: byHash.HashJSON(), found: true},
		"by path":               {file: pathName, text: byPath.ValueJSON(), found: true},
		"unsigned":              {file: hashName, text: signed(func(*pathinfo.Realisation) {}).HashJSON(), told: "ignoring substitute for build trace"},
		"unsigned, but trusted": {file: hashName, text: signed(func(*pathinfo.Realisation) {}).HashJSON(), params: "?trusted=1", found: true},
		"signed by path":        {file: hashName, text: byPath.HashJSON(), told: "ignoring substitute for build trace"},
		"corrupt":               {file: hashName, text: "{", told: "error: "},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.cache.write(test.file, test.text)
			sess, log := w.session(1, w.cache.uri()+test.params)
			r, failed, err := w.subst.Realisation(w.ctx, sess, id)
			if err != nil || (r != nil) != test.found || r != nil && r.OutPath != out || failed != (name == "corrupt") {
				t.Errorf("found %+v, failed %v, %v", r, failed, err)
			}
			if test.told != "" && !strings.Contains(log.text(), test.told) {
				t.Errorf("told\n%s", log.text())
			}
		})
	}
}

// closedSource is a store that notes when it is closed.
type closedSource struct {
	Source
	closed *int
}

func (c closedSource) Close() error {
	*c.closed++
	return nil
}

// A store that turns out to be open when nobody waits for it any more is closed.
func TestOpenedForNobody(t *testing.T) {
	opening, closed := make(chan struct{}), 0
	r := newRegistry(func(ctx context.Context, _ Asker, _ settings.StoreReference) (Source, error) {
		close(opening)
		<-ctx.Done()
		return closedSource{closed: &closed}, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	sess := &session.Session{Settings: &settings.Settings{Substituters: []string{"https://cache"}}, Log: activity.Discard{}}
	done := make(chan error, 1)
	go func() {
		_, err := r.list(ctx, sess)
		done <- err
	}()
	<-opening
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := r.close(); err != nil || closed != 1 {
		t.Errorf("closed %d times, %v", closed, err)
	}
}
