package cachestore

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/localstore"
	"nixdaemon/localstore/localstoretest"
	"nixdaemon/protocol"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

func TestRoundTrip(t *testing.T) {
	for _, method := range []string{"none", "xz", "zstd", "gzip", "bzip2", "br", "lz4", "lzma", "lzip"} {
		t.Run(method, func(t *testing.T) {
			w := newWorld(t, settings.Param{Name: "compression", Value: method}, settings.Param{Name: "parallel-compression", Value: "true"})
			leaf, leafData := w.path("leaf", strings.Repeat("leaf ", 1000))
			top, topData := w.path("top", "top", leaf.Path)
			w.add(leaf, leafData)
			w.add(top, topData)
			for p, data := range map[storepath.Path][]byte{leaf.Path: leafData, top.Path: topData} {
				if got := w.dump(p); !bytes.Equal(got, data) {
					t.Errorf("%s: %d bytes, want %d", p, len(got), len(data))
				}
			}
			got, err := w.open().PathInfo(w.ctx, top.Path)
			w.must(err)
			if diff := cmp.Diff(top, got, cmp.Comparer(func(a, b storepath.Path) bool { return a == b }), cmp.Comparer(func(a, b nixhash.Hash) bool { return a == b }),
				cmp.Comparer(func(a, b storepath.ContentAddress) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
			closure, err := w.store.Closure(w.ctx, []storepath.Path{top.Path}, localstore.ClosureOptions{})
			w.must(err)
			if !slices.Equal(closure, storepath.SortUnique([]storepath.Path{top.Path, leaf.Path})) {
				t.Errorf("closure: %v", closure)
			}
		})
	}
}

func TestNarinfo(t *testing.T) {
	w := newWorld(t)
	w.store = w.open(settings.Param{Name: "compression", Value: "none"}, settings.Param{Name: "secret-key", Value: w.keyFile("a-1")},
		settings.Param{Name: "secret-keys", Value: w.keyFile("bb-1") + "," + w.keyFile("ccc-1")})
	info, data := w.path("hello", "hi\n")
	w.add(info, data)
	text := w.files.text(info.Path.HashPart() + ".narinfo")
	sum := nixhash.Of(nixhash.SHA256, string(data))
	want := "StorePath: /nix/store/" + info.Path.Base() + "\nURL: nar/" + sum.Nix32() + ".nar\nCompression: none\nFileHash: " + sum.String() +
		"\nFileSize: 120\nNarHash: " + sum.String() + "\nNarSize: 120\nReferences: \n"
	rest, ok := strings.CutPrefix(text, want)
	if !ok {
		t.Fatalf("got\n%s\nwant\n%s", text, want)
	}
	names := []string{}
	for line := range strings.Lines(rest) {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "Sig: "), ":")
		names = append(names, name)
	}
	if !slices.Equal(names, []string{"a-1", "bb-1", "ccc-1"}) {
		t.Errorf("signed by %q", names)
	}

	sig := pathinfo.Signature("extra-1:AAAA")
	w.must(w.store.AddSignatures(w.ctx, info.Path, []pathinfo.Signature{sig}))
	got, err := w.store.PathInfo(w.ctx, info.Path)
	w.must(err)
	if len(got.Sigs) != 4 || !slices.Contains(got.Sigs, sig) {
		t.Errorf("signatures: %q", got.Sigs)
	}
}

// TestOrder breaks the upload off before each of its objects. The path is not valid then, and the next try completes it.
func TestOrder(t *testing.T) {
	params := []settings.Param{{Name: "write-nar-listing", Value: "true"}, {Name: "index-debug-info", Value: "1"}, {Name: "compression", Value: "none"}}
	var b bytes.Buffer
	n := nar.NewWriter(&b)
	const member = "lib/debug/.build-id/ab/cdef0123456789abcdef0123456789abcdef01.debug"
	steps := strings.Split(member, "/")
	err := n.Directory("")
	for _, dir := range steps[:4] {
		err = errors.Join(err, n.Directory(dir))
	}
	err = errors.Join(err, n.Regular(steps[4], false, 1, strings.NewReader("x")), n.Regular("other", false, 1, strings.NewReader("x")))
	for range 5 {
		err = errors.Join(err, n.EndDirectory())
	}
	if err = errors.Join(err, n.Close()); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, params...)
	info, _ := w.path("debug", "")
	info.NarHash, info.NarSize = nixhash.Of(nixhash.SHA256, b.String()), uint64(b.Len())
	w.add(info, b.Bytes())
	hash := info.Path.HashPart()
	archive := "nar/" + info.NarHash.Nix32() + ".nar"
	want := []string{"nix-cache-info", hash + ".ls", "debuginfo/abcdef0123456789abcdef0123456789abcdef01.debug", archive, hash + ".narinfo"}
	if diff := cmp.Diff(want, w.files.names()); diff != "" {
		t.Fatal(diff)
	}
	if got := w.files.text(want[2]); got != `{"archive":"../`+archive+`","member":"`+member+`"}` {
		t.Errorf("debuginfo: %s", got)
	}
	for _, broken := range want[1:] {
		w := newWorld(t, params...)
		failure := errors.New("no more room")
		w.files.before = func(name string) error {
			if name == broken {
				return failure
			}
			return nil
		}
		if err := w.store.AddNAR(w.ctx, info, bytes.NewReader(b.Bytes()), localstore.AddOptions{}); !errors.Is(err, failure) {
			t.Errorf("without %s: %v", broken, err)
		}
		if valid, err := w.store.IsValid(w.ctx, info.Path); valid || err != nil {
			t.Errorf("without %s: valid %v, %v", broken, valid, err)
		}
		w.files.before = nil
		w.add(info, b.Bytes())
		if got := w.dump(info.Path); !bytes.Equal(got, b.Bytes()) {
			t.Errorf("after %s: other contents", broken)
		}
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	good, data := w.path("good", "good")
	missing, _ := w.path("missing", "")
	for name, test := range map[string]struct {
		change func(info *pathinfo.Info)
		want   string
	}{
		"other contents": {func(i *pathinfo.Info) { i.NarHash = nixhash.Of(nixhash.SHA256, "") }, "hash mismatch importing path"},
		"other size":     {func(i *pathinfo.Info) { i.NarSize++ }, "size mismatch importing path"},
		"no reference":   {func(i *pathinfo.Info) { i.References = []storepath.Path{missing.Path} }, "to the binary cache because the reference"},
	} {
		info := *good
		test.change(&info)
		if err := w.store.AddNAR(w.ctx, &info, bytes.NewReader(data), localstore.AddOptions{}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.store.PathInfo(w.ctx, good.Path); !errors.As(err, new(*localstore.NotValidError)) {
		t.Errorf("a path that was refused: %v", err)
	}
	// A path that is valid is read all the same, as others follow it in the stream.
	w.add(good, data)
	stream := bytes.NewReader(append(append([]byte{}, data...), "rest"...))
	w.must(w.store.AddNAR(w.ctx, good, stream, localstore.AddOptions{}))
	if rest, err := io.ReadAll(stream); err != nil || string(rest) != "rest" {
		t.Errorf("%q is left, %v", rest, err)
	}
}

// TestUntrusted: what others believe because this cache has it must be signed, or prove itself.
func TestUntrusted(t *testing.T) {
	w := newWorld(t)
	o := w.follow(false)
	unsigned, data := w.path("unsigned", "u")
	signed, signedData := w.path("signed", "s")
	w.must(signed.Sign(storepath.DefaultDir, w.key))
	ca := func(name, text string, method storepath.Method, hash nixhash.Hash) (*pathinfo.Info, []byte) {
		data := nartest.File(text)
		info, err := pathinfo.FromCA(storepath.DefaultDir, name, storepath.ContentAddress{Method: method, Hash: hash}, storepath.References{})
		w.must(err)
		info.NarHash, info.NarSize = nixhash.Of(nixhash.SHA256, string(data)), uint64(len(data))
		return info, data
	}
	flat, flatData := ca("flat", "f", storepath.MethodFlat, nixhash.Of(nixhash.SHA1, "f"))
	text, textData := ca("text", "t", storepath.MethodText, nixhash.Of(nixhash.SHA256, "t"))
	tree, treeData := ca("tree", "n", storepath.MethodNAR, nixhash.Of(nixhash.SHA512, string(nartest.File("n"))))
	liar, liarData := ca("liar", "l", storepath.MethodFlat, nixhash.Of(nixhash.SHA256, "something else"))
	for _, test := range []struct {
		info *pathinfo.Info
		data []byte
		want string
	}{
		{unsigned, data, "lacks a signature by a trusted key"}, {signed, signedData, ""}, {flat, flatData, ""}, {text, textData, ""},
		{tree, treeData, ""}, {liar, liarData, "ca hash mismatch importing path"},
	} {
		err := w.store.AddNAR(w.ctx, test.info, bytes.NewReader(test.data), o)
		if (test.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.info.Path, err, test.want)
		}
	}
	id := pathinfo.DrvOutput{DrvHash: nixhash.Of(nixhash.SHA256, "d"), Output: "out"}
	r := &pathinfo.Realisation{ID: id, OutPath: signed.Path}
	if err := w.store.RegisterRealisation(w.ctx, r); err == nil || !strings.Contains(err.Error(), "lacks a signature by a trusted key") {
		t.Errorf("a realisation: %v", err)
	}
	r.SignByHash(w.key)
	w.must(w.store.RegisterRealisation(w.ctx, r))
	many := []pathinfo.Signature{pathinfo.Signature("many:" + strings.Repeat("A", maxSignatures))}
	if err := w.store.AddSignatures(w.ctx, signed.Path, many); err == nil || err.Error() != "you are not privileged to add so many signatures" {
		t.Errorf("many signatures: %v", err)
	}
	w.must(w.store.AddNAR(w.ctx, unsigned, bytes.NewReader(data), w.follow(true)))
}

// TestDumps compares with what a store of this machine makes of the same contents.
func TestDumps(t *testing.T) {
	w := newWorld(t)
	local := localstoretest.New(t, nil)
	ref, refData := w.path("ref", "r")
	w.add(ref, refData)
	if err := local.AddNAR(w.ctx, ref, bytes.NewReader(refData), localstore.AddOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, spec := range map[string]localstore.DumpSpec{
		"tree":  {Name: "tree", Method: storepath.MethodNAR, Algo: nixhash.SHA256},
		"sha1":  {Name: "sha1", Method: storepath.MethodNAR, Algo: nixhash.SHA1},
		"flat":  {Name: "flat", Method: storepath.MethodFlat, Algo: nixhash.SHA256},
		"old":   {Name: "old", Method: storepath.MethodFlat, Algo: nixhash.SHA256, IsNAR: true},
		"text":  {Name: "text", Method: storepath.MethodText, Algo: nixhash.SHA256, References: []storepath.Path{ref.Path}},
		"large": {Name: "large", Method: storepath.MethodFlat, Algo: nixhash.SHA512},
	} {
		contents := "contents of " + name
		if name == "large" {
			contents = strings.Repeat(contents, 3*inMemory/len(contents))
		}
		data := contents
		if spec.Method == storepath.MethodNAR || spec.IsNAR {
			data = string(nartest.File(contents))
		}
		want, err := local.AddDump(w.ctx, spec, strings.NewReader(data), localstore.AddOptions{})
		w.must(err)
		got, err := w.store.AddDump(w.ctx, spec, strings.NewReader(data), localstore.AddOptions{})
		w.must(err)
		if p, err := storepath.DefaultDir.FromContentAddress(spec.Name, want.CA, storepath.References{Others: spec.References}); err != nil || got.Path != p {
			t.Errorf("%s: path %s, want %s, %v", name, got.Path, p, err)
		}
		if got.CA != want.CA || got.NarHash != want.NarHash || got.NarSize != want.NarSize || !slices.Equal(got.References, want.References) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
		if back := w.dump(got.Path); !bytes.Equal(back, nartest.File(contents)) {
			t.Errorf("%s: other contents come back", name)
		}
	}
	if _, err := w.store.AddDump(w.ctx, localstore.DumpSpec{Name: "g", Method: storepath.MethodGit, Algo: nixhash.SHA1}, strings.NewReader(""), localstore.AddOptions{}); err == nil ||
		err.Error() != "operation 'addToStoreFromDump' is not supported by store 'http://cache'" {
		t.Errorf("git: %v", err)
	}
}

func TestEncodings(t *testing.T) {
	w := newWorld(t)
	w.store = w.open(settings.Param{Name: "narinfo-compression", Value: "gzip"}, settings.Param{Name: "ls-compression", Value: "br"},
		settings.Param{Name: "log-compression", Value: "zstd"}, settings.Param{Name: "write-nar-listing", Value: "true"})
	info, data := w.path("encoded", "e")
	w.add(info, data)
	drv, err := storepath.ParseBase(info.Path.HashPart() + "-x.drv")
	w.must(err)
	w.must(w.store.AddBuildLog(w.ctx, drv, strings.NewReader("what it said\n")))
	for name, want := range map[string]struct{ encoding, text string }{
		info.Path.HashPart() + ".narinfo": {"gzip", "StorePath: "},
		info.Path.HashPart() + ".ls":      {"br", `{"root":`},
		"log/" + drv.Base():               {"zstd", "what it said\n"},
	} {
		if got := w.files.encodings[name]; got != want.encoding {
			t.Errorf("%s is encoded as %q, want %q", name, got, want.encoding)
		}
		r, err := w.files.Get(w.ctx, w.store.asker(), name)
		w.must(err)
		text, err := io.ReadAll(r)
		if err != nil || !strings.HasPrefix(string(text), want.text) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if got, err := w.open().PathInfo(w.ctx, info.Path); err != nil || got.NarHash != info.NarHash {
		t.Errorf("read again: %v, %v", got, err)
	}
}

func TestParams(t *testing.T) {
	for name, want := range map[[2]string]string{
		{"compression", "rar"}:           "option 'compression' has invalid value 'rar'",
		{"compression-level", "high"}:    "setting 'compression-level' has invalid value 'high'",
		{"log-compression", "x"}:         "option 'log-compression' has invalid value 'x'",
		{"secret-key", "/nowhere/key"}:   `opening file "/nowhere/key": No such file or directory`,
		{"secret-keys", ",/nowhere/key"}: `opening file "/nowhere/key": No such file or directory`,
	} {
		p, err := parseParams(settings.StoreReference{Params: []settings.Param{{Name: name[0], Value: name[1]}}})
		if err == nil {
			err = p.readKeys()
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s=%s: %v, want %s", name[0], name[1], err, want)
		}
	}
}

func TestRealisations(t *testing.T) {
	w := newWorld(t)
	info, data := w.path("made", "m")
	w.add(info, data)
	drv, err := storepath.ParseBase(info.Path.HashPart() + "-x.drv")
	w.must(err)
	for name, id := range map[string]pathinfo.DrvOutput{
		"realisations/" + nixhash.Of(nixhash.SHA256, "d").Format(nixhash.Base16, true) + "!out.doi": {DrvHash: nixhash.Of(nixhash.SHA256, "d"), Output: "out"},
		"build-trace-v2/" + drv.Base() + "/dev.doi":                                                 {DrvPath: drv, Output: "dev"},
	} {
		w.must(w.store.RegisterRealisation(w.ctx, &pathinfo.Realisation{ID: id, OutPath: info.Path}))
		if w.files.text(name) == "" {
			t.Errorf("no object %s: %q", name, w.files.names())
		}
		for _, s := range []*Store{w.store, w.open()} {
			if got, err := s.QueryRealisation(w.ctx, id); err != nil || got == nil || got.OutPath != info.Path {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		}
	}
}

// TestLacks: what upstream's caches cannot do, in its words.
func TestLacks(t *testing.T) {
	w := newWorld(t)
	_, err1 := w.store.AllValidPaths(w.ctx)
	_, err2 := w.store.Referrers(w.ctx, storepath.Path{})
	_, err3 := w.store.AddPermRoot(w.ctx, storepath.Path{}, "/r")
	_, err4 := w.store.Collect(w.ctx, nil, protocol.GCRequest{})
	_, err5 := w.store.FindRoots(w.ctx, nil, false)
	for _, test := range []struct {
		err  error
		want string
	}{
		{err1, "operation 'queryAllValidPaths' is not supported by store 'http://cache'"},
		{err2, "operation 'queryReferrers' is not supported by store 'http://cache'"},
		{err3, "Local Filesystem Store not supported by store 'http://cache'"},
		{err4, "Garbage collection not supported by store 'http://cache'"},
		{err5, "Garbage collection not supported by store 'http://cache'"},
		{w.store.AddIndirectRoot(w.ctx, "/r"), "Indirect GC roots registration not supported by store 'http://cache'"},
	} {
		if test.err == nil || test.err.Error() != test.want {
			t.Errorf("%v, want %s", test.err, test.want)
		}
	}
}
