package localstoretest

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// Store is what the contract needs of a way to a store.
type Store interface {
	Dir() storepath.Dir
	IsValid(ctx context.Context, p storepath.Path) (bool, error)
	// PathInfo fails with upstream's text for a path that is not valid.
	PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error)
	ValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error)
	AllValidPaths(ctx context.Context) ([]storepath.Path, error)
	Referrers(ctx context.Context, p storepath.Path) ([]storepath.Path, error)
	PathFromHashPart(ctx context.Context, hashPart string) (storepath.Path, error)
	AddText(ctx context.Context, name, text string, refs []storepath.Path) (*pathinfo.Info, error)
	AddNAR(ctx context.Context, info *pathinfo.Info, archive io.Reader) error
	AddSignatures(ctx context.Context, p storepath.Path, sigs []pathinfo.Signature) error
	Dump(ctx context.Context, p storepath.Path, w io.Writer) error
}

// Local is the store itself, as the contract wants it.
type Local struct{ *localstore.Store }

var _ Store = Local{}

// AddText adds a text without checking signatures.
func (l Local) AddText(ctx context.Context, name, text string, refs []storepath.Path) (*pathinfo.Info, error) {
	spec := localstore.DumpSpec{Name: name, Method: storepath.MethodText, Algo: nixhash.SHA256, References: refs}
	return l.Store.AddDump(ctx, spec, strings.NewReader(text), localstore.AddOptions{})
}

// AddNAR adds an archive without checking signatures.
func (l Local) AddNAR(ctx context.Context, info *pathinfo.Info, archive io.Reader) error {
	return l.Store.AddNAR(ctx, info, archive, localstore.AddOptions{})
}

// Run checks the contract. open gives an empty store for each part.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for name, f := range map[string]func(t *testing.T, s Store){
		"Empty": empty, "AddText": addText, "AddNAR": addNAR, "Refused": refused, "Signatures": signatures,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// somePath is a path that no store has.
func somePath(t *testing.T) storepath.Path {
	return must[storepath.Path](t)(storepath.New([20]byte{1, 2, 3}, "nowhere"))
}

func isNotValid(t *testing.T, s Store, p storepath.Path, err error) {
	t.Helper()
	if want := "path '" + s.Dir().Print(p) + "' is not valid"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func empty(t *testing.T, s Store) {
	ctx, p := t.Context(), somePath(t)
	if must[bool](t)(s.IsValid(ctx, p)) {
		t.Error("an unknown path is valid")
	}
	_, err := s.PathInfo(ctx, p)
	isNotValid(t, s, p, err)
	isNotValid(t, s, p, s.Dump(ctx, p, io.Discard))
	if all := must[[]storepath.Path](t)(s.AllValidPaths(ctx)); len(all) != 0 {
		t.Errorf("holds %v", all)
	}
	if refs := must[[]storepath.Path](t)(s.Referrers(ctx, p)); len(refs) != 0 {
		t.Errorf("referred to by %v", refs)
	}
	if got := must[storepath.Path](t)(s.PathFromHashPart(ctx, p.HashPart())); !got.IsZero() {
		t.Errorf("hash part belongs to %v", got)
	}
}

func addText(t *testing.T, s Store) {
	ctx := t.Context()
	a := must[*pathinfo.Info](t)(s.AddText(ctx, "a", "text", nil))
	b := must[*pathinfo.Info](t)(s.AddText(ctx, "b", "text", []storepath.Path{a.Path}))
	again := must[*pathinfo.Info](t)(s.AddText(ctx, "a", "text", nil))
	if again.Path != a.Path || again.NarHash != a.NarHash {
		t.Errorf("added again as %+v", again)
	}
	if got := must[*pathinfo.Info](t)(s.PathInfo(ctx, b.Path)); !slices.Equal(got.References, []storepath.Path{a.Path}) {
		t.Errorf("refers to %v", got.References)
	}
	if got := must[[]storepath.Path](t)(s.Referrers(ctx, a.Path)); !slices.Equal(got, []storepath.Path{b.Path}) {
		t.Errorf("referred to by %v", got)
	}
	both := storepath.SortUnique([]storepath.Path{a.Path, b.Path})
	asked := storepath.SortUnique(append(slices.Clone(both), somePath(t)))
	if got := must[[]storepath.Path](t)(s.ValidPaths(ctx, asked)); !slices.Equal(got, both) {
		t.Errorf("valid are %v", got)
	}
	if got := must[[]storepath.Path](t)(s.AllValidPaths(ctx)); !slices.Equal(got, both) {
		t.Errorf("holds %v", got)
	}
	if got := must[storepath.Path](t)(s.PathFromHashPart(ctx, a.Path.HashPart())); got != a.Path {
		t.Errorf("hash part belongs to %v", got)
	}
	var dump, want bytes.Buffer
	w := nar.NewWriter(&want)
	w.Regular("", false, 4, strings.NewReader("text"))
	w.Close()
	if err := s.Dump(ctx, a.Path, &dump); err != nil || dump.String() != want.String() {
		t.Errorf("dumped %q: %v", dump.String(), err)
	}
}

// tree is an archive and the metadata that fit it.
func tree(t *testing.T, s Store) (*pathinfo.Info, []byte) {
	t.Helper()
	var data bytes.Buffer
	w := nar.NewWriter(&data)
	w.Directory("")
	w.Regular("prog", true, 3, strings.NewReader("abc"))
	w.Symlink("to", "prog")
	w.EndDirectory()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	hash := nixhash.Of(nixhash.SHA256, data.String())
	ca := storepath.ContentAddress{Method: storepath.MethodNAR, Hash: hash}
	info := must[*pathinfo.Info](t)(pathinfo.FromCA(s.Dir(), "tree", ca, storepath.References{}))
	info.NarHash, info.NarSize = hash, uint64(data.Len())
	return info, data.Bytes()
}

func addNAR(t *testing.T, s Store) {
	ctx := t.Context()
	info, data := tree(t, s)
	for range 2 { // added, then valid already
		if err := s.AddNAR(ctx, info, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	got := must[*pathinfo.Info](t)(s.PathInfo(ctx, info.Path))
	if got.NarHash != info.NarHash || got.NarSize != info.NarSize || got.CA != info.CA || got.RegistrationTime == 0 {
		t.Errorf("known as %+v", got)
	}
	var dump bytes.Buffer
	if err := s.Dump(ctx, info.Path, &dump); err != nil || !bytes.Equal(dump.Bytes(), data) {
		t.Errorf("dump differs: %v", err)
	}
}

func refused(t *testing.T, s Store) {
	ctx := t.Context()
	info, data := tree(t, s)
	wrong := *info
	wrong.NarHash = nixhash.Of(nixhash.SHA256, "another")
	if err := s.AddNAR(ctx, &wrong, bytes.NewReader(data)); err == nil || !strings.Contains(err.Error(), "hash mismatch importing path") {
		t.Errorf("wrong hash: %v", err)
	}
	if must[bool](t)(s.IsValid(ctx, info.Path)) {
		t.Error("is valid although its hash is wrong")
	}
	missing := somePath(t)
	_, err := s.AddText(ctx, "x", "text", []storepath.Path{missing})
	isNotValid(t, s, missing, err)
}

func signatures(t *testing.T, s Store) {
	ctx := t.Context()
	a := must[*pathinfo.Info](t)(s.AddText(ctx, "a", "text", nil))
	sigs := []pathinfo.Signature{"one:AAAA", "two:AAAA"}
	for _, sig := range []pathinfo.Signature{sigs[1], sigs[0], sigs[1]} {
		if err := s.AddSignatures(ctx, a.Path, []pathinfo.Signature{sig}); err != nil {
			t.Fatal(err)
		}
	}
	if got := must[*pathinfo.Info](t)(s.PathInfo(ctx, a.Path)); !slices.Equal(got.Sigs, sigs) {
		t.Errorf("signed by %v", got.Sigs)
	}
}
