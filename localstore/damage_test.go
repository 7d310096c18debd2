package localstore

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"nixdaemon/protocol/storepath"
)

// damageCase is something that befell a store that was in use and then closed.
type damageCase struct {
	name  string
	spoil func(t *testing.T, o *Options)
	// want is what opening, or else using, must fail with; "" means that it must work.
	want string
	// root says that only root can do that.
	root bool
}

func dbFile(o *Options) string { return filepath.Join(o.dbDir(), "db.sqlite") }

func spoilWith(file string, data []byte) func(*testing.T, *Options) {
	return func(t *testing.T, o *Options) {
		if err := os.WriteFile(filepath.Join(o.dbDir(), file), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func truncated(size func(int64) int64) func(*testing.T, *Options) {
	return func(t *testing.T, o *Options) {
		info, err := os.Stat(dbFile(o))
		if err == nil {
			err = os.Truncate(dbFile(o), size(info.Size()))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// flipped damages the pages from that number on.
func flipped(from int64) func(*testing.T, *Options) {
	return func(t *testing.T, o *Options) {
		f, err := os.OpenFile(dbFile(o), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		luck := rand.New(rand.NewPCG(1, 2))
		noise := make([]byte, info.Size()-from*4096)
		for i := range noise {
			noise[i] = byte(luck.Uint32())
		}
		if _, err := f.WriteAt(noise, from*4096); err != nil {
			t.Fatal(err)
		}
	}
}

const damaged = `database ".*/db.sqlite" is damaged: (?s:.*)Do not collect garbage`

func damageCases() []damageCase {
	return []damageCase{
		{name: "emptied database", spoil: truncated(func(int64) int64 { return 0 }), want: damaged},
		{name: "half a database", spoil: truncated(func(n int64) int64 { return n / 2 &^ 4095 }), want: damaged},
		{name: "part of a page", spoil: truncated(func(int64) int64 { return 1000 }), want: damaged},
		{name: "no database at all", spoil: func(t *testing.T, o *Options) { os.Remove(dbFile(o)) }, want: `cannot open SQLite database ".*/db.sqlite": it is gone, .*\nPut back a backup`},
		{name: "something else", spoil: spoilWith("db.sqlite", bytes.Repeat([]byte("no database\n"), 1000)), want: damaged},
		{name: "all pages but the first", spoil: flipped(1), want: damaged},
		{name: "pages at the end", spoil: flipped(5), want: damaged},
		{name: "a directory", spoil: func(t *testing.T, o *Options) {
			if err := errors.Join(os.Remove(dbFile(o)), os.Mkdir(dbFile(o), 0o755)); err != nil {
				t.Fatal(err)
			}
		}, want: `cannot open SQLite database ".*/db.sqlite": it is not a regular file`},
		{name: "another program's database", spoil: foreignDatabase, want: damaged},
		{name: "a log of noise", spoil: spoilWith("db.sqlite-wal", bytes.Repeat([]byte("noise"), 10_000))},
		{name: "an index of noise", spoil: spoilWith("db.sqlite-shm", bytes.Repeat([]byte("noise"), 10_000))},
		{name: "newer schema", spoil: spoilWith("schema", []byte("11")), want: `current Nix store schema is version 11, but I only support 10`},
		{name: "ancient schema", spoil: spoilWith("schema", []byte("5")), want: `upgrade Nix to version 1\.11 first`},
		{name: "schema of noise", spoil: spoilWith("schema", []byte("noise")), want: `"/.*/schema" is corrupt`},
		{name: "empty schema", spoil: spoilWith("schema", nil), want: `"/.*/schema" is corrupt`},
		{name: "store is a file", spoil: func(t *testing.T, o *Options) {
			if err := errors.Join(os.RemoveAll(string(o.StoreDir)), os.WriteFile(string(o.StoreDir), nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		}, want: `"?/.*/store"?.*ot a directory`},
		{name: "state is a file", spoil: func(t *testing.T, o *Options) {
			if err := errors.Join(os.RemoveAll(o.StateDir), os.WriteFile(o.StateDir, nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		}, want: `"?/.*/var.*"?.*ot a directory`},
		{name: "no links", spoil: func(t *testing.T, o *Options) { os.RemoveAll(o.linksDir()) }},
		{name: "no temporary roots", spoil: func(t *testing.T, o *Options) { os.RemoveAll(o.tempRootsDir()) }},
	}
}

// foreignDatabase has tables, and none of ours.
func foreignDatabase(t *testing.T, o *Options) {
	for _, name := range []string{"db.sqlite", "db.sqlite-wal", "db.sqlite-shm"} {
		os.Remove(filepath.Join(o.dbDir(), name))
	}
	c, err := sqlite.OpenConn(dbFile(o), sqlite.OpenReadWrite|sqlite.OpenCreate)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sqlitex.ExecuteScript(c, "create table Other(a)", nil), c.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestDamage: whatever is wrong is said clearly, and not made worse: the files are as they were.
func TestDamage(t *testing.T) {
	for _, c := range append(damageCases(), mountCases()...) {
		t.Run(c.name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			o := testOptions(t)
			s := openWith(t, o)
			var last storepath.Path
			for i := range 100 {
				last = addText(t, s, "text", strings.Repeat("x", i)).Path
			}
			closeStore(t, s)
			c.spoil(t, &o)
			before := contentsOf(t, &o)
			err := useAll(&o, last)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !regexp.MustCompile(c.want).MatchString(err.Error())):
				t.Errorf("got %v, want %s", err, c.want)
			}
			if c.want == "" {
				return
			}
			after := contentsOf(t, &o)
			for name, data := range before {
				if !bytes.Equal(after[name], data) {
					t.Errorf("%s was changed", name)
				}
			}
		})
	}
}

// useAll opens a store and reads all of it, and gives the first error.
func useAll(o *Options, p storepath.Path) error {
	s, err := Open(ctx, *o)
	if err != nil {
		return err
	}
	defer s.Close()
	all, err := s.AllValidPaths(ctx)
	if err != nil {
		return err
	}
	for _, p := range append(all, p) {
		if _, err := s.PathInfo(ctx, p); err != nil {
			return err
		}
		if _, err := s.Referrers(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// contentsOf reads what must not change: the database with its log, the schema, and the store.
func contentsOf(t *testing.T, o *Options) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	for _, root := range []string{o.dbDir(), string(o.StoreDir)} {
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, "-shm") || strings.HasSuffix(path, "reserved") {
				return nil
			}
			if all[path], err = os.ReadFile(path); err != nil {
				t.Error(err)
			}
			return nil
		})
	}
	return all
}
