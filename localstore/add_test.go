package localstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

var ctx = context.Background()

// fileArchive is the archive of one file.
func fileArchive(t testing.TB, text string, executable bool) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := nar.NewWriter(&buf)
	w.Regular("", executable, uint64(len(text)), strings.NewReader(text))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func smallTree(t testing.TB, text string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := nar.NewWriter(&buf)
	w.Directory("")
	w.Regular("file", true, uint64(len(text)), strings.NewReader(text))
	w.Symlink("link", "file")
	w.EndDirectory()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// narInfo is the metadata that fit an archive, content-addressed as a whole.
func narInfo(t testing.TB, s *Store, name string, data []byte, refs ...storepath.Path) *pathinfo.Info {
	t.Helper()
	hash := nixhash.Of(nixhash.SHA256, string(data))
	ca := storepath.ContentAddress{Method: storepath.MethodNAR, Hash: hash}
	info, err := pathinfo.FromCA(s.Dir(), name, ca, storepath.References{Others: storepath.SortUnique(refs)})
	if err != nil {
		t.Fatal(err)
	}
	info.NarHash, info.NarSize = hash, uint64(len(data))
	return info
}

// TestAddDumpInMemoryAndStaged: how contents get in does not show.
func TestAddDumpInMemoryAndStaged(t *testing.T) {
	long := strings.Repeat("0123456789", 300_000)
	for _, c := range []struct {
		name string
		spec DumpSpec
		data []byte
	}{
		{"text", DumpSpec{Method: storepath.MethodText, Algo: nixhash.SHA256}, []byte("hello")},
		{"empty", DumpSpec{Method: storepath.MethodText, Algo: nixhash.SHA256}, nil},
		{"flat", DumpSpec{Method: storepath.MethodFlat, Algo: nixhash.SHA1}, []byte(long)},
		{"flat in archive", DumpSpec{Method: storepath.MethodFlat, Algo: nixhash.SHA256, IsNAR: true}, fileArchive(t, long, true)},
		{"tree", DumpSpec{Method: storepath.MethodNAR, Algo: nixhash.SHA256}, smallTree(t, long)},
		{"tree by sha512", DumpSpec{Method: storepath.MethodNAR, Algo: nixhash.SHA512}, smallTree(t, "x")},
		{"git", DumpSpec{Method: storepath.MethodGit, Algo: nixhash.SHA1}, smallTree(t, "x")},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.spec.Name = "name"
			var infos []*pathinfo.Info
			for _, limit := range []int{0, 10, 70_000} {
				s := open(t, func(o *Options) { o.NarBufferSize, o.StoreDir, o.RealDir = limit, "/nix/store", string(o.StoreDir) })
				info, err := s.AddDump(ctx, c.spec, bytes.NewReader(c.data), AddOptions{})
				if err != nil {
					t.Fatal(err)
				}
				checkPath(t, s, info)
				noLeftovers(t, s)
				infos = append(infos, info)
			}
			for _, info := range infos[1:] {
				if info.Path != infos[0].Path || info.NarHash != infos[0].NarHash || info.NarSize != infos[0].NarSize {
					t.Errorf("%+v differs from %+v", info, infos[0])
				}
			}
		})
	}
}

// checkPath looks whether a path is what its metadata say, and gives its archive.
func checkPath(t *testing.T, s *Store, info *pathinfo.Info) []byte {
	t.Helper()
	got, err := s.PathInfo(ctx, info.Path)
	if err != nil {
		t.Fatal(err)
	}
	if got.NarHash != info.NarHash || got.NarSize != info.NarSize || got.CA != info.CA || got.RegistrationTime == 0 {
		t.Errorf("stored as %+v, added as %+v", got, info)
	}
	var buf bytes.Buffer
	if err := s.Dump(ctx, info.Path, &buf); err != nil {
		t.Fatal(err)
	}
	if nixhash.Of(nixhash.SHA256, buf.String()) != info.NarHash || uint64(buf.Len()) != info.NarSize {
		t.Error("contents do not match their metadata")
	}
	return buf.Bytes()
}

// noLeftovers looks for what should be gone as soon as something was added.
func noLeftovers(t *testing.T, s *Store) {
	t.Helper()
	entries, err := os.ReadDir(s.RealDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := storepath.ParseBase(e.Name()); e.Name() != linksName && err != nil || strings.HasSuffix(e.Name(), lockSuffix) {
			t.Errorf("store holds %s", e.Name())
		}
	}
}

func TestAddDumpConsumesItsArchiveOnly(t *testing.T) {
	for _, c := range []DumpSpec{
		{Name: "a", Method: storepath.MethodNAR, Algo: nixhash.SHA256},
		{Name: "b", Method: storepath.MethodFlat, Algo: nixhash.SHA256, IsNAR: true},
	} {
		s := open(t, nil)
		for range 2 { // added, then valid already
			r := io.MultiReader(bytes.NewReader(fileArchive(t, "hello", false)), strings.NewReader("rest"))
			if _, err := s.AddDump(ctx, c, r, AddOptions{}); err != nil {
				t.Fatal(err)
			}
			if rest, _ := io.ReadAll(r); string(rest) != "rest" {
				t.Errorf("left %q", rest)
			}
		}
	}
}

func TestAddDumpRefuses(t *testing.T) {
	s := open(t, nil)
	failing := io.MultiReader(strings.NewReader("abc"), &failingReader{})
	for name, c := range map[string]struct {
		spec DumpSpec
		data io.Reader
		want string
	}{
		"text by sha1":    {DumpSpec{Method: storepath.MethodText, Algo: nixhash.SHA1}, strings.NewReader("x"), "must use sha256"},
		"references":      {DumpSpec{Method: storepath.MethodFlat, Algo: nixhash.SHA256, References: []storepath.Path{mustPath(t, "r")}}, strings.NewReader("x"), "is not allowed to refer to other store paths"},
		"missing ref":     {DumpSpec{Method: storepath.MethodText, Algo: nixhash.SHA256, References: []storepath.Path{mustPath(t, "r")}}, strings.NewReader("x"), "' is not valid"},
		"garbage":         {DumpSpec{Method: storepath.MethodNAR, Algo: nixhash.SHA256}, strings.NewReader("garbage......................."), "bad archive"},
		"tree for file":   {DumpSpec{Method: storepath.MethodFlat, Algo: nixhash.SHA256, IsNAR: true}, bytes.NewReader(smallTree(t, "x")), "regular file expected"},
		"failing":         {DumpSpec{Method: storepath.MethodFlat, Algo: nixhash.SHA256}, failing, "connection lost"},
		"not a drv":       {DumpSpec{Name: "x.drv", Method: storepath.MethodText, Algo: nixhash.SHA256}, strings.NewReader("hello"), "error parsing derivation"},
		"git by sha512":   {DumpSpec{Method: storepath.MethodGit, Algo: nixhash.SHA512}, bytes.NewReader(smallTree(t, "x")), "Git file ingestion must use SHA-1 or SHA-256 hash"},
		"truncated large": {DumpSpec{Method: storepath.MethodNAR, Algo: nixhash.SHA256}, io.LimitReader(bigFile(100<<20), 60<<20), "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.spec.Name == "" {
				c.spec.Name = "name"
			}
			if _, err := s.AddDump(ctx, c.spec, c.data, AddOptions{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if all, err := s.AllValidPaths(ctx); len(all) != 0 || err != nil {
				t.Error(all, err)
			}
		})
	}
}

type failingReader struct{}

func (*failingReader) Read([]byte) (int, error) { return 0, errors.New("connection lost") }

func TestAddNARMismatches(t *testing.T) {
	s := open(t, nil)
	data := smallTree(t, "text")
	good := narInfo(t, s, "tree", data)
	path := s.Dir().Print(good.Path)
	other := nixhash.Of(nixhash.SHA256, "other")
	flat := storepath.ContentAddress{Method: storepath.MethodNAR, Hash: nixhash.Of(nixhash.SHA1, "other")}
	flatInfo, err := pathinfo.FromCA(s.Dir(), "tree", flat, storepath.References{})
	if err != nil {
		t.Fatal(err)
	}
	flatInfo.NarHash, flatInfo.NarSize = good.NarHash, good.NarSize
	for _, c := range []struct {
		info *pathinfo.Info
		want string
	}{
		{&pathinfo.Info{Path: good.Path, NarHash: other, NarSize: good.NarSize},
			fmt.Sprintf("hash mismatch importing path '%s';\n  specified: %s\n  got:       %s", path, other, good.NarHash)},
		{&pathinfo.Info{Path: good.Path, NarHash: good.NarHash, NarSize: 7},
			fmt.Sprintf("size mismatch importing path '%s';\n  specified: 7\n  got:       %d", path, good.NarSize)},
		{flatInfo, fmt.Sprintf("ca hash mismatch importing path '%s';\n  specified: %s\n  got:       %s",
			s.Dir().Print(flatInfo.Path), flat.Hash, nixhash.Of(nixhash.SHA1, string(data)))},
		{&pathinfo.Info{Path: mustPath(t, "x"), NarHash: good.NarHash, NarSize: good.NarSize, CA: good.CA},
			fmt.Sprintf("cannot add path '%s' to the Nix store because it claims to be content-addressed but isn't", s.Dir().Print(mustPath(t, "x")))},
		{&pathinfo.Info{Path: good.Path, NarHash: good.NarHash, NarSize: good.NarSize, References: []storepath.Path{mustPath(t, "r")}},
			fmt.Sprintf("path '%s' is not valid", s.Dir().Print(mustPath(t, "r")))},
	} {
		r := io.MultiReader(bytes.NewReader(data), strings.NewReader("rest"))
		if err := s.AddNAR(ctx, c.info, r, AddOptions{}); err == nil || err.Error() != c.want {
			t.Errorf("got %v\nwant %s", err, c.want)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "rest" {
			t.Errorf("left %q", rest)
		}
	}
	if err := s.AddNAR(ctx, good, bytes.NewReader(data), AddOptions{}); err != nil {
		t.Fatal(err)
	}
	checkPath(t, s, good)
}

func TestAddNARChecksSignatures(t *testing.T) {
	s := open(t, nil)
	key, err := pathinfo.ParseSecretKey("test-1:" + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA7aie8zrakLWKjqNAqbw1zZTIVdx3iQ6Y6wEihi1naKQ==")
	if err != nil {
		t.Fatal(err)
	}
	keys := pathinfo.Keys{}
	keys.Add(key.Public())
	data := smallTree(t, "text")
	info := narInfo(t, s, "tree", data)
	info.CA = storepath.ContentAddress{}
	o := AddOptions{RequireSigs: true, TrustedKeys: keys}
	r := io.MultiReader(bytes.NewReader(data), strings.NewReader("rest"))
	want := fmt.Sprintf("cannot add path '%s' because it lacks a signature by a trusted key", s.Dir().Print(info.Path))
	if err := s.AddNAR(ctx, info, r, o); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "rest" {
		t.Errorf("left %q", rest)
	}
	if err := info.Sign(s.Dir(), key); err != nil {
		t.Fatal(err)
	}
	if err := s.AddNAR(ctx, info, bytes.NewReader(data), o); err != nil {
		t.Error(err)
	}
	content := smallTree(t, "addressed by content")
	if err := s.AddNAR(ctx, narInfo(t, s, "tree", content), bytes.NewReader(content), o); err != nil {
		t.Error(err)
	}
}

// TestAddNARWithSelfReference: the hash of a path that contains its own name is made with zeros in the name's place.
func TestAddNARWithSelfReference(t *testing.T) {
	s := open(t, nil)
	zeros := string(make([]byte, storepath.HashLen))
	template := smallTree(t, "I am "+zeros+", yes "+zeros)
	ca := storepath.ContentAddress{Method: storepath.MethodNAR, Hash: nixhash.Of(nixhash.SHA256, string(template))}
	info, err := pathinfo.FromCA(s.Dir(), "self", ca, storepath.References{Self: true})
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.ReplaceAll(template, []byte(zeros), []byte(info.Path.HashPart()))
	info.NarHash, info.NarSize = nixhash.Of(nixhash.SHA256, string(data)), uint64(len(data))
	if err := s.AddNAR(ctx, info, bytes.NewReader(data), AddOptions{}); err != nil {
		t.Fatal(err)
	}
	checkPath(t, s, info)
}

func TestRepairReplaces(t *testing.T) {
	s := open(t, nil)
	data := smallTree(t, "text")
	info := narInfo(t, s, "tree", data)
	text := addText(t, s, "text", "good")
	if err := s.AddNAR(ctx, info, bytes.NewReader(data), AddOptions{}); err != nil {
		t.Fatal(err)
	}
	damage := func() {
		for path, bad := range map[string]string{filepath.Join(s.RealPath(info.Path), "file"): "bad!", s.RealPath(text.Path): "bad!"} {
			os.Chmod(path, 0o644)
			if err := os.WriteFile(path, []byte(bad), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	damage()
	if err := s.AddNAR(ctx, info, bytes.NewReader(data), AddOptions{}); err != nil {
		t.Fatal(err)
	}
	if bad, _ := s.Verify(ctx, VerifyOptions{CheckContents: true}); !bad {
		t.Error("what is valid was replaced without being asked for")
	}
	if err := s.AddNAR(ctx, info, bytes.NewReader(data), AddOptions{Repair: true}); err != nil {
		t.Fatal(err)
	}
	spec := DumpSpec{Name: "text", Method: storepath.MethodText, Algo: nixhash.SHA256, Repair: true}
	if _, err := s.AddDump(ctx, spec, strings.NewReader("good"), AddOptions{}); err != nil {
		t.Fatal(err)
	}
	if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true}); bad || err != nil {
		t.Error(bad, err)
	}
	noLeftovers(t, s)
}

func TestAddRemovesGarbage(t *testing.T) {
	s := open(t, nil)
	data := smallTree(t, "text")
	info := narInfo(t, s, "tree", data)
	os.MkdirAll(filepath.Join(s.RealPath(info.Path), "garbage"), 0o755)
	if err := s.AddNAR(ctx, info, bytes.NewReader(data), AddOptions{}); err != nil {
		t.Fatal(err)
	}
	checkPath(t, s, info)
}

// TestAddSameFromMany: the same path from many goroutines and two stores over the same files.
func TestAddSameFromMany(t *testing.T) {
	o := testOptions(t)
	var stores [2]*Store
	for i := range stores {
		s, err := Open(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		stores[i] = s
	}
	var group sync.WaitGroup
	for i := range 8 {
		s := stores[i%2]
		group.Go(func() {
			for n := range 50 {
				spec := DumpSpec{Name: "same", Method: storepath.MethodText, Algo: nixhash.SHA256}
				if _, err := s.AddDump(ctx, spec, strings.NewReader(fmt.Sprint(n)), AddOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if bad, err := stores[0].Verify(ctx, VerifyOptions{CheckContents: true}); bad || err != nil {
		t.Error(bad, err)
	}
	if all, _ := stores[1].AllValidPaths(ctx); len(all) != 50 {
		t.Errorf("%d paths", len(all))
	}
}

func TestImport(t *testing.T) {
	s := open(t, nil)
	im := s.NewImport(AddOptions{})
	var infos []*pathinfo.Info
	var last []storepath.Path
	for i := range 600 {
		data := smallTree(t, fmt.Sprint(i))
		info := narInfo(t, s, "tree", data, last...)
		last = []storepath.Path{info.Path}
		for range 2 { // the second time it is known already
			r := io.MultiReader(bytes.NewReader(data), strings.NewReader("rest"))
			if err := im.Add(ctx, info, r); err != nil {
				t.Fatal(err)
			}
			if rest, _ := io.ReadAll(r); string(rest) != "rest" {
				t.Fatalf("left %q", rest)
			}
		}
		infos = append(infos, info)
	}
	if err := im.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if locks, err := filepath.Glob(s.RealDir() + "/*" + lockSuffix); len(locks) != 0 || err != nil {
		t.Errorf("lock files are left: %v, %v", locks, err)
	}
	for _, info := range infos {
		checkPath(t, s, info)
	}
	// A path that cannot be registered takes none of those before it along.
	good, bad := smallTree(t, "good"), smallTree(t, "bad")
	goodInfo, badInfo := narInfo(t, s, "g", good), narInfo(t, s, "b", bad, mustPath(t, "missing"))
	im.Add(ctx, goodInfo, bytes.NewReader(good))
	im.Add(ctx, badInfo, bytes.NewReader(bad))
	if err := im.Flush(ctx); !errors.As(err, new(*NotValidError)) {
		t.Error(err)
	}
	checkPath(t, s, goodInfo)
	if err := im.Close(); err != nil {
		t.Error(err)
	}
	noLeftovers(t, s)
	if found, err := s.Verify(ctx, VerifyOptions{CheckContents: true}); found || err != nil {
		t.Error(found, err)
	}
}

// TestImportsOfTheSamePaths must not wait for each other for ever.
func TestImportsOfTheSamePaths(t *testing.T) {
	s := open(t, nil)
	var data [][]byte
	for i := range 40 {
		data = append(data, smallTree(t, fmt.Sprint(i)))
	}
	var group sync.WaitGroup
	for k := range 4 {
		group.Go(func() {
			im := s.NewImport(AddOptions{})
			for i := range data {
				d := data[(i*(2*k+1)+k)%len(data)]
				if err := im.Add(ctx, narInfo(t, s, "x", d), bytes.NewReader(d)); err != nil {
					t.Error(err)
				}
			}
			if err := errors.Join(im.Flush(ctx), im.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if found, err := s.Verify(ctx, VerifyOptions{CheckContents: true}); found || err != nil {
		t.Error(found, err)
	}
}

func TestCancelledAdd(t *testing.T) {
	s := open(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	spec := DumpSpec{Name: "big", Method: storepath.MethodNAR, Algo: nixhash.SHA256}
	r := io.TeeReader(bigFile(200<<20), writerFunc(func(p []byte) (int, error) {
		cancel()
		return len(p), nil
	}))
	if _, err := s.AddDump(ctx, spec, r, AddOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	noLeftovers(t, s)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
