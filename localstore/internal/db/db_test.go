package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const testHash = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func storePath(i int, name string) string {
	const digits = "0123456789abcdfghijklmnpqrsvwxyz"
	hash := make([]byte, 32)
	x := uint64(i)*0x9e3779b97f4a7c15 + 1
	for j := range hash {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		hash[j] = digits[x%32]
	}
	return fmt.Sprintf("/nix/store/%s-%s-%d", hash, name, i)
}

func testOptions(t testing.TB) Options {
	return Options{
		Dir:           filepath.Join(t.TempDir(), "db"),
		UseWAL:        true,
		FsyncMetadata: true,
		ReservedSize:  64 << 10,
		Logger:        func(msg string) { t.Log(msg) },
	}
}

func openTest(t testing.TB, opts Options) *DB {
	t.Helper()
	db, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return db
}

func register(t testing.TB, db *DB, rows ...PathRow) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *Tx) error { return tx.Register(rows, nil) })
	if err != nil {
		t.Fatalf("Register: %v", err)
	}
}

var ignoreOrder = cmpopts.SortSlices(func(a, b string) bool { return a < b })

func TestOpenCreatesDirectory(t *testing.T) {
	opts := testOptions(t)
	db := openTest(t, opts)
	schema, err := os.ReadFile(filepath.Join(opts.Dir, "schema"))
	if err != nil || string(schema) != "10" {
		t.Errorf("schema file = %q, %v; want 10", schema, err)
	}
	for name, want := range map[string]struct {
		size int64
		mode os.FileMode
	}{"big-lock": {0, 0o600}, "reserved": {64 << 10, 0o600}} {
		st, err := os.Stat(filepath.Join(opts.Dir, name))
		if err != nil || st.Size() != want.size || st.Mode() != want.mode {
			t.Errorf("%s: got %v, %v; want size %d mode %v", name, st, err, want.size, want.mode)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(opts.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{"big-lock", "db.sqlite", "db.sqlite-shm", "db.sqlite-wal", "reserved", "schema"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("directory after close (-want +got):\n%s", diff)
	}
	if st, err := os.Stat(filepath.Join(opts.Dir, "db.sqlite-wal")); err != nil || st.Size() != 0 {
		t.Errorf("log after close: %v, %v; want it kept and empty", st, err)
	}
}

func TestRegisterAndQuery(t *testing.T) {
	for _, wal := range []bool{true, false} {
		t.Run(fmt.Sprintf("wal=%v", wal), func(t *testing.T) {
			opts := testOptions(t)
			opts.UseWAL = wal
			testRegisterAndQuery(t, openTest(t, opts))
		})
	}
}

func testRegisterAndQuery(t *testing.T, db *DB) {
	ctx := t.Context()
	drv, out, dep := storePath(1, "hello.drv"), storePath(2, "hello"), storePath(3, "libc")
	full := PathRow{
		Path: out, Hash: testHash, RegistrationTime: 1700000000, Deriver: drv, NarSize: 4711, Ultimate: true,
		Sigs: "a:sig1 b:sig2", CA: "fixed:sha256:abc", References: []string{dep, out},
	}
	plain := PathRow{Path: dep, Hash: testHash, RegistrationTime: 5}
	err := db.Write(ctx, func(tx *Tx) error {
		rows := []PathRow{full, {Path: drv, Hash: testHash, RegistrationTime: 7, NarSize: 1}, plain}
		return tx.Register(rows, map[string]map[string]string{drv: {"out": out, "dev": storePath(9, "dev")}})
	})
	if err != nil {
		t.Fatalf("Register: %v", err)
	}
	for _, want := range []PathRow{full, plain} {
		got, found, err := db.QueryPath(ctx, want.Path)
		if err != nil || !found {
			t.Fatalf("QueryPath(%s) = %v, %v", want.Path, found, err)
		}
		if diff := cmp.Diff(want, got, ignoreOrder, cmpopts.IgnoreFields(PathRow{}, "ID")); diff != "" {
			t.Errorf("QueryPath (-want +got):\n%s", diff)
		}
	}
	if _, found, err := db.QueryPath(ctx, storePath(4, "none")); found || err != nil {
		t.Errorf("QueryPath of an invalid path = %v, %v", found, err)
	}
	check := func(what string, got []string, err error, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, got, ignoreOrder); diff != "" || err != nil {
			t.Errorf("%s: error %v (-want +got):\n%s", what, err, diff)
		}
	}
	got, err := db.Referrers(ctx, out)
	check("Referrers", got, err, out)
	got, err = db.Referrers(ctx, dep)
	check("Referrers", got, err, out)
	got, err = db.ReferencesOf(ctx, out)
	check("ReferencesOf", got, err, out, dep)
	got, err = db.ValidDerivers(ctx, out)
	check("ValidDerivers", got, err, drv)
	got, err = db.AllPaths(ctx)
	check("AllPaths", got, err, out, dep, drv)
	got, err = db.ValidSubset(ctx, []string{dep, storePath(4, "none"), out})
	check("ValidSubset", got, err, dep, out)
	outputs, err := db.DerivationOutputs(ctx, drv)
	if diff := cmp.Diff(map[string]string{"out": out, "dev": storePath(9, "dev")}, outputs); diff != "" || err != nil {
		t.Errorf("DerivationOutputs: %v\n%s", err, diff)
	}
	var invalid *NotValidError
	if _, err := db.DerivationOutputs(ctx, storePath(4, "none")); !errors.As(err, &invalid) {
		t.Errorf("DerivationOutputs of an invalid path: %v", err)
	}
	if path, found, err := db.PathFromHashPart(ctx, out[:43]); path != out || !found || err != nil {
		t.Errorf("PathFromHashPart = %q, %v, %v", path, found, err)
	}
	if path, found, err := db.PathFromHashPart(ctx, "/nix/store/00000000000000000000000000000000"); found || err != nil {
		t.Errorf("PathFromHashPart of nothing = %q, %v, %v", path, found, err)
	}
}

// TestReferencesAfterRemoval: the names that readers remember must follow what happens to the rows.
func TestReferencesAfterRemoval(t *testing.T) {
	opts := testOptions(t)
	db := openTest(t, opts)
	foreign := openForeign(t, opts.Dir)
	a, b := storePath(1, "a"), storePath(2, "b")
	for round := range 3 {
		register(t, db, PathRow{Path: a, Hash: testHash}, PathRow{Path: b, Hash: testHash, References: []string{a}})
		row, _, err := db.QueryPath(t.Context(), b)
		if diff := cmp.Diff([]string{a}, row.References); diff != "" || err != nil {
			t.Errorf("round %d: %v\n%s", round, err, diff)
		}
		must(t, foreign.script("update ValidPaths set path = path || 'x' where path = '"+a+"'"))
		row, _, err = db.QueryPath(t.Context(), b)
		if diff := cmp.Diff([]string{a + "x"}, row.References); diff != "" || err != nil {
			t.Errorf("round %d after a foreign change: %v\n%s", round, err, diff)
		}
		must(t, db.Write(t.Context(), func(tx *Tx) error {
			_, err1 := tx.Invalidate(b)
			_, err2 := tx.Invalidate(a + "x")
			return errors.Join(err1, err2)
		}))
	}
}

func TestNullConventions(t *testing.T) {
	db := openTest(t, testOptions(t))
	register(t, db, PathRow{Path: storePath(1, "a"), Hash: testHash})
	var columns string
	err := db.read(t.Context(), func(c *conn) (err error) {
		columns, err = c.query("select coalesce(deriver, 'N') || coalesce(narSize, 'N') || coalesce(ultimate, 'N') " +
			"|| coalesce(sigs, 'N') || coalesce(ca, 'N') || (registrationTime > 1600000000) from ValidPaths")
		return err
	})
	if err != nil || columns != "NNNNN1" {
		t.Errorf("absent columns = %q, %v; want NNNNN and a recent time", columns, err)
	}
}

func TestRegisterAgainUpdates(t *testing.T) {
	db := openTest(t, testOptions(t))
	a, b, c := storePath(1, "a"), storePath(2, "b"), storePath(3, "c")
	register(t, db, PathRow{Path: b, Hash: testHash}, PathRow{Path: c, Hash: testHash})
	register(t, db, PathRow{
		Path: a, Hash: testHash, RegistrationTime: 10, Deriver: "/nix/store/first.drv", NarSize: 1, Ultimate: true,
		Sigs: "x:1", CA: "text:1", References: []string{b},
	})
	register(t, db, PathRow{
		Path: a, Hash: "sha256:other", RegistrationTime: 20, Deriver: "/nix/store/second.drv", References: []string{c, b},
	})
	got, _, err := db.QueryPath(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	want := PathRow{
		Path: a, Hash: "sha256:other", RegistrationTime: 10, Deriver: "/nix/store/first.drv", References: []string{b, c},
	}
	if diff := cmp.Diff(want, got, ignoreOrder, cmpopts.IgnoreFields(PathRow{}, "ID")); diff != "" {
		t.Errorf("after update (-want +got):\n%s", diff)
	}
}

func TestRegisterRefusesMissingReference(t *testing.T) {
	db := openTest(t, testOptions(t))
	a, missing := storePath(1, "a"), storePath(2, "missing")
	err := db.Write(t.Context(), func(tx *Tx) error {
		return tx.Register([]PathRow{{Path: a, Hash: testHash, References: []string{missing}}}, nil)
	})
	if err == nil || err.Error() != "path '"+missing+"' is not valid" {
		t.Errorf("error = %v", err)
	}
	if valid, err := db.IsValid(t.Context(), a); valid || err != nil {
		t.Errorf("IsValid after failure = %v, %v", valid, err)
	}
}

func TestInvalidate(t *testing.T) {
	db := openTest(t, testOptions(t))
	ctx := t.Context()
	a, b := storePath(1, "a"), storePath(2, "b")
	register(t, db, PathRow{Path: a, Hash: testHash, References: []string{a}}, PathRow{Path: b, Hash: testHash, References: []string{a}})
	invalidate := func(path string) (found bool, err error) {
		err = db.Write(ctx, func(tx *Tx) (err error) { found, err = tx.Invalidate(path); return err })
		return found, err
	}
	var inUse *ReferrersError
	if _, err := invalidate(a); !errors.As(err, &inUse) || !cmp.Equal(inUse.Referrers, []string{b}) {
		t.Errorf("Invalidate in use: %v", err)
	}
	for _, path := range []string{b, a} {
		if found, err := invalidate(path); !found || err != nil {
			t.Errorf("Invalidate(%s) = %v, %v", path, found, err)
		}
	}
	if found, err := invalidate(a); found || err != nil {
		t.Errorf("Invalidate again = %v, %v", found, err)
	}
}

func TestSetters(t *testing.T) {
	db := openTest(t, testOptions(t))
	a := storePath(1, "a")
	register(t, db, PathRow{Path: a, Hash: testHash, Sigs: "x:1"})
	err := db.Write(t.Context(), func(tx *Tx) error {
		return errors.Join(tx.SetSignatures(a, "x:1 y:2"), tx.SetHash(a, "sha256:new", 99),
			tx.AddDerivationOutputs(a, map[string]string{"out": "/nix/store/o"}))
	})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := db.QueryPath(t.Context(), a)
	if err != nil || got.Sigs != "x:1 y:2" || got.Hash != "sha256:new" || got.NarSize != 99 {
		t.Errorf("row = %+v, %v", got, err)
	}
	var invalid *NotValidError
	for name, set := range map[string]func(*Tx) error{
		"SetSignatures":        func(tx *Tx) error { return tx.SetSignatures("/none", "") },
		"SetHash":              func(tx *Tx) error { return tx.SetHash("/none", "", 0) },
		"AddDerivationOutputs": func(tx *Tx) error { return tx.AddDerivationOutputs("/none", nil) },
	} {
		if err := db.Write(t.Context(), set); !errors.As(err, &invalid) {
			t.Errorf("%s of an invalid path: %v", name, err)
		}
	}
}

func TestRealisations(t *testing.T) {
	opts := testOptions(t)
	opts.WantCA = true
	db := openTest(t, opts)
	ctx := t.Context()
	out := storePath(1, "out")
	register(t, db, PathRow{Path: out, Hash: testHash})
	for _, kind := range []KeyKind{ByHash, ByPath} {
		row := RealisationRow{Drv: "key", Output: "out", Path: out, Sigs: "k:1"}
		err := db.Write(ctx, func(tx *Tx) error {
			if err := tx.AddRealisation(kind, row); err != nil {
				return err
			}
			if _, found, err := tx.QueryRealisation(kind, "key", "out"); !found {
				return fmt.Errorf("not found in transaction: %v", err)
			}
			found, err := tx.SetRealisationSignatures(kind, "key", "out", "k:1 l:2")
			if !found {
				return fmt.Errorf("not found by update: %v", err)
			}
			return err
		})
		if err != nil {
			t.Fatalf("kind %d: %v", kind, err)
		}
		row.Sigs = "k:1 l:2"
		got, found, err := db.QueryRealisation(ctx, kind, "key", "out")
		if !found || err != nil || got != row {
			t.Errorf("kind %d: got %+v, %v, %v", kind, got, found, err)
		}
	}
	err := db.Write(ctx, func(tx *Tx) error {
		return tx.AddRealisation(ByHash, RealisationRow{Drv: "k", Output: "out", Path: "/none"})
	})
	var invalid *NotValidError
	if !errors.As(err, &invalid) {
		t.Errorf("realisation of an invalid path: %v", err)
	}
	err = db.Write(ctx, func(tx *Tx) error { _, err := tx.Invalidate(out); return err })
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[KeyKind]bool{ByHash: false, ByPath: true} {
		if _, found, err := db.QueryRealisation(ctx, kind, "key", "out"); found != want || err != nil {
			t.Errorf("kind %d after invalidation: %v, %v; want %v", kind, found, err, want)
		}
	}
}

func TestRealisationsWithoutTables(t *testing.T) {
	db := openTest(t, testOptions(t))
	if _, found, err := db.QueryRealisation(t.Context(), ByHash, "k", "out"); found || err != nil {
		t.Errorf("QueryRealisation = %v, %v", found, err)
	}
	err := db.Write(t.Context(), func(tx *Tx) error { return tx.AddRealisation(ByPath, RealisationRow{}) })
	if !errors.Is(err, ErrNoRealisations) {
		t.Errorf("AddRealisation: %v", err)
	}
}

func TestLoadGraph(t *testing.T) {
	db := openTest(t, testOptions(t))
	a, b, c := storePath(1, "a"), storePath(2, "b"), storePath(3, "c.drv")
	err := db.Write(t.Context(), func(tx *Tx) error {
		return tx.Register([]PathRow{
			{Path: a, Hash: testHash, NarSize: 10, Deriver: c},
			{Path: b, Hash: testHash, References: []string{a, b}},
			{Path: c, Hash: testHash, References: []string{b}},
		}, map[string]map[string]string{c: {"out": a}})
	})
	if err != nil {
		t.Fatal(err)
	}
	g, err := db.LoadGraph(t.Context(), GraphOptions{Derivers: true, Outputs: true})
	if err != nil {
		t.Fatal(err)
	}
	edges := map[string][]string{}
	for i, path := range g.Paths {
		edges[path] = nil
		for _, to := range g.References(int32(i)) {
			edges[path] = append(edges[path], g.Paths[to])
		}
	}
	if diff := cmp.Diff(map[string][]string{a: nil, b: {a, b}, c: {b}}, edges, ignoreOrder); diff != "" {
		t.Errorf("edges (-want +got):\n%s", diff)
	}
	if g.Paths[g.Derivers[0]] != c || g.Derivers[1] != -1 || g.NarSizes[0] != 10 || len(g.Outputs) != 1 ||
		g.Paths[g.Outputs[0].Out] != a || g.Paths[g.Outputs[0].Drv] != c {
		t.Errorf("graph = %+v", g)
	}
	for i, path := range g.Paths {
		if n, found := g.Node(baseName(path)); !found || n != int32(i) {
			t.Errorf("node of %s: %d, %v", path, n, found)
		}
	}
	if n, found := g.Node(baseName(storePath(1, "other"))); found {
		t.Errorf("node %d of a path that is not valid", n)
	}
	some, err := db.LoadGraph(t.Context(), GraphOptions{})
	if err != nil || some.Derivers != nil || some.Outputs != nil {
		t.Errorf("loaded what was not asked for: %+v, %v", some, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.LoadGraph(ctx, GraphOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("LoadGraph cancelled: %v", err)
	}
}

// query returns the first column of the first row.
func (c *conn) query(text string) (string, error) {
	s, _, err := c.sql.PrepareTransient(text)
	if err != nil {
		return "", err
	}
	defer s.Finalize()
	if _, err := s.Step(); err != nil {
		return "", err
	}
	return strings.Clone(s.ColumnText(0)), nil
}
