package db

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
	"zombiezen.com/go/sqlite"

	"nixdaemon/localstore/pathlock"
)

func TestOpenSchemaErrors(t *testing.T) {
	const newer = "current Nix store schema is version 11, but I only support 10\n" +
		"A newer release has upgraded this store: use that one, or a version of this daemon that knows the schema."
	const corrupt = "\"%s/schema\" is corrupt\n" +
		"It must hold the number of the database's schema and nothing else. See whether the disk is full or failing.\n" +
		"If \"db.sqlite\" beside it is sound, write 10 into it, without a newline."
	for _, tt := range []struct {
		schema   string
		readOnly bool
		want     string
	}{
		{schema: "11", want: newer},
		{schema: "11", readOnly: true, want: newer},
		{schema: "4", want: "Your Nix store has a database in Berkeley DB format,\nwhich is no longer supported. " +
			"To convert to the new format,\nplease upgrade Nix to version 0.12 first."},
		{schema: "5", want: "Your Nix store has a database in flat file format,\nwhich is no longer supported. " +
			"To convert to the new format,\nplease upgrade Nix to version 1.11 first."},
		{schema: "9", readOnly: true, want: "database schema needs migrating, but this cannot be done in read-only mode"},
		{schema: "", readOnly: true, want: "database does not exist, and cannot be created in read-only mode"},
		{schema: "ten", want: corrupt},
		{schema: "10\n", want: corrupt},
	} {
		t.Run(fmt.Sprintf("%q readonly=%v", tt.schema, tt.readOnly), func(t *testing.T) {
			dir := t.TempDir()
			if tt.schema != "" {
				must(t, os.WriteFile(filepath.Join(dir, "schema"), []byte(tt.schema), 0o644))
			}
			_, err := Open(t.Context(), Options{Dir: dir, UseWAL: true, ReadOnly: tt.readOnly})
			want := strings.ReplaceAll(tt.want, "%s", dir)
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func TestOpenWithoutPermission(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "db")
	must(t, os.Mkdir(dir, 0o555))
	must(t, os.Chmod(filepath.Dir(base), 0o755)) // for other users to get there
	var err error
	unprivileged(t, func() {
		_, err = Open(t.Context(), Options{Dir: dir, UseWAL: true, ReservedSize: -1})
	})
	var traced *TracedError
	if !errors.As(err, &traced) || !strings.HasPrefix(err.Error(), "opening lock file \""+dir+"/big-lock\": ") {
		t.Errorf("Open = %v", err)
	}
}

func TestOpenWaitsForBigLock(t *testing.T) {
	opts := testOptions(t)
	must(t, os.Mkdir(opts.Dir, 0o755))
	lock, err := pathlock.OpenLockFile(filepath.Join(opts.Dir, "big-lock"), true)
	must(t, err)
	defer lock.Close()
	must(t, pathlock.Flock(t.Context(), lock, pathlock.Exclusive, nil))
	waiting := make(chan string, 1)
	opts.Logger = func(msg string) { waiting <- msg }
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { _, err := Open(ctx, opts); result <- err }()
	if msg := <-waiting; msg != "waiting for the big Nix store lock..." {
		t.Errorf("message %q", msg)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("Open = %v", err)
	}
}

func TestBigLockHeldWhileOpen(t *testing.T) {
	opts := testOptions(t)
	db := openTest(t, opts)
	lock, err := pathlock.OpenLockFile(filepath.Join(opts.Dir, "big-lock"), false)
	must(t, err)
	defer lock.Close()
	for _, want := range []bool{false, true} {
		if ok, err := pathlock.TryFlock(lock, pathlock.Exclusive); ok != want || err != nil {
			t.Errorf("exclusive lock: %v, %v; want %v", ok, err, want)
		}
		must(t, db.Close())
	}
}

// oldSchema is what the releases with that schema number left behind.
func oldSchema(version int) string {
	columns := "id integer primary key autoincrement not null, path text unique not null, hash text not null, " +
		"registrationTime integer not null, deriver text, narSize integer"
	if version >= 8 {
		columns += ", ultimate integer, sigs text"
	}
	text := sqlText("create_schema") + "drop table ValidPaths; create table ValidPaths (" + columns + ");\n" +
		"create trigger DeleteSelfRefs before delete on ValidPaths begin " +
		"delete from Refs where referrer = old.id and reference = old.id; end;\n" +
		"insert into ValidPaths (path, hash, registrationTime) values ('/old', 'sha256:x', 3);\n"
	if version < 9 {
		text += "create table FailedPaths (path text primary key not null, time integer not null);\n"
	}
	return text
}

func TestUpgrade(t *testing.T) {
	for version := 6; version <= 9; version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			opts := testOptions(t)
			must(t, os.Mkdir(opts.Dir, 0o755))
			c, err := openConn(databaseURI(opts.Dir, true, false), sqlite.OpenReadWrite|sqlite.OpenCreate)
			must(t, err)
			must(t, c.script(oldSchema(version)))
			must(t, c.close())
			must(t, os.WriteFile(filepath.Join(opts.Dir, "schema"), []byte(fmt.Sprint(version)), 0o644))
			testUpgraded(t, opts)
			// A crash after the database's upgrade and before the schema file's.
			must(t, os.WriteFile(filepath.Join(opts.Dir, "schema"), []byte(fmt.Sprint(version)), 0o644))
			testUpgraded(t, opts)
		})
	}
}

func testUpgraded(t *testing.T, opts Options) {
	t.Helper()
	db := openTest(t, opts)
	if row, found, err := db.QueryPath(t.Context(), "/old"); !found || err != nil || row.RegistrationTime != 3 {
		t.Errorf("old row: %+v, %v, %v", row, found, err)
	}
	register(t, db, PathRow{Path: "/new", Hash: testHash, Ultimate: true, Sigs: "s", CA: "c"})
	must(t, db.Close())
	if text, err := os.ReadFile(filepath.Join(opts.Dir, "schema")); string(text) != "10" {
		t.Errorf("schema = %q, %v", text, err)
	}
	if all := schemaOf(t, opts.Dir); slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, "FailedPaths") }) {
		t.Error("FailedPaths is still there")
	}
}

func TestReadOnly(t *testing.T) {
	opts := testOptions(t)
	db := openTest(t, opts)
	register(t, db, PathRow{Path: "/a", Hash: testHash})
	must(t, db.Close())
	before := listFiles(t, opts.Dir)
	opts.ReadOnly = true
	db = openTest(t, opts)
	if valid, err := db.IsValid(t.Context(), "/a"); !valid || err != nil {
		t.Errorf("IsValid = %v, %v", valid, err)
	}
	if err := db.Write(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Write = %v", err)
	}
	generation := db.Generation()
	if db.Generation() != generation || db.Stale() {
		t.Error("an immutable database changed")
	}
	must(t, db.Close())
	if diff := cmp.Diff(before, listFiles(t, opts.Dir)); diff != "" {
		t.Errorf("files (-before +after):\n%s", diff)
	}
}

func TestMigrationRows(t *testing.T) {
	opts := testOptions(t)
	for _, ca := range []bool{false, true, false} {
		opts.WantCA = ca
		must(t, openTest(t, opts).Close())
		c := openForeign(t, opts.Dir)
		rows, err := c.strings(stmtListMigrations, nil)
		must(t, err)
		must(t, c.close())
		var want []string
		if len(rows) > 0 || ca {
			want = []string{"20220326-ca-derivations", "20251017-ca-derivations"}
		}
		if diff := cmp.Diff(want, rows, ignoreOrder); diff != "" {
			t.Errorf("ca=%v (-want +got):\n%s", ca, diff)
		}
	}
}

// TestTwoOpenInOneProcess: closing one must not take the locks of the other away.
func TestTwoOpenInOneProcess(t *testing.T) {
	opts := testOptions(t)
	one, two := openTest(t, opts), openTest(t, opts)
	for i := range 20 {
		generation := two.Generation()
		register(t, one, PathRow{Path: storePath(i, "one"), Hash: testHash})
		if two.Generation() == generation {
			t.Error("the other's change was not noticed")
		}
		register(t, two, PathRow{Path: storePath(i, "two"), Hash: testHash, References: []string{storePath(i, "one")}})
	}
	must(t, one.Close())
	register(t, two, PathRow{Path: "/last", Hash: testHash})
	checkIntegrity(t, two)
}
