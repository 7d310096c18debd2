package db

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"modernc.org/libc"
	engine "modernc.org/sqlite/lib"
	"zombiezen.com/go/sqlite"
)

// spied is what happens beneath the joined writes: an interface of SQLite to the system that counts those to
// write-ahead logs and can make one fail. Its functions cannot be closures, hence the variable.
var spied struct {
	once   sync.Once
	unix   uintptr
	writes atomic.Int64
	// failAt is the number of the write to fail; 0 for none.
	failAt atomic.Int64
}

const spyVFS, joinedSpyVFS = "nixdaemon-spy", "nixdaemon-joined-spy"

// openSpied opens a database as the writing connection is opened, with joined writes or without.
func openSpied(t *testing.T, opts Options, vfs string) *conn {
	t.Helper()
	spied.once.Do(func() { registerSpy(t); must(t, registerJoined(joinedSpyVFS, spyVFS)) })
	c, err := openConn(databaseURI(opts.Dir, true, false)+"?vfs="+vfs, sqlite.OpenReadWrite)
	must(t, err)
	t.Cleanup(func() { must(t, c.close()) })
	must(t, setPragmas(c, opts))
	must(t, c.run("select count(*) from ValidPaths"))
	spied.writes.Store(0)
	spied.failAt.Store(0)
	return c
}

func registerSpy(t *testing.T) {
	tls := libc.NewTLS()
	defer tls.Close()
	engine.Xsqlite3_initialize(tls)
	spied.unix = engine.Xsqlite3_vfs_find(tls, 0)
	data := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(engine.Tsqlite3_vfs{})))
	vfs := at[engine.Tsqlite3_vfs](data)
	*vfs = *at[engine.Tsqlite3_vfs](spied.unix)
	name, err := libc.CString(spyVFS)
	must(t, err)
	vfs.FpNext, vfs.FzName, vfs.FxOpen = 0, name, pointer[openFunc](spyOpen)
	must(t, result(engine.Xsqlite3_vfs_register(tls, data, 0)))
}

func spyOpen(tls *libc.TLS, _, name, file uintptr, flags int32, outFlags uintptr) int32 {
	rc := function[openFunc](at[engine.Tsqlite3_vfs](spied.unix).FxOpen)(tls, spied.unix, name, file, flags, outFlags)
	if rc == engine.SQLITE_OK && flags&engine.SQLITE_OPEN_WAL != 0 {
		// Leaked: it is a test.
		copied := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(engine.Tsqlite3_io_methods{})))
		methods := at[engine.Tsqlite3_io_methods](copied)
		*methods = *at[engine.Tsqlite3_io_methods](at[engine.Tsqlite3_file](file).FpMethods)
		spyWriteTo.Store(methods.FxWrite)
		methods.FxWrite = pointer[transferFunc](spyWrite)
		at[engine.Tsqlite3_file](file).FpMethods = copied
	}
	return rc
}

var spyWriteTo atomic.Uintptr

func spyWrite(tls *libc.TLS, file, buf uintptr, size int32, offset int64) int32 {
	if spied.writes.Add(1) == spied.failAt.Load() {
		return engine.SQLITE_FULL
	}
	return function[transferFunc](spyWriteTo.Load())(tls, file, buf, size, offset)
}

// addRows inserts n rows in one transaction.
func addRows(c *conn, from, n int) error {
	err := c.run("begin immediate")
	for i := from; i < from+n && err == nil; i++ {
		err = c.insertNamed(storePath(i, "joined"))
	}
	if err == nil {
		err = c.run("commit")
	}
	if err != nil && !c.sql.AutocommitEnabled() {
		err = errors.Join(err, c.run("rollback"))
	}
	return err
}

func (c *conn) insertNamed(path string) error {
	return c.run(fmt.Sprintf("insert into ValidPaths (path, hash, registrationTime) values ('%s', '%s', 1)", path, testHash))
}

func (c *conn) run(text string) error {
	_, err := c.query(text)
	return err
}

func countRows(t *testing.T, c *conn) string {
	t.Helper()
	n, err := c.query("select count(*) from ValidPaths")
	must(t, err)
	return n
}

func emptyDatabase(t *testing.T) Options {
	t.Helper()
	opts := testOptions(t)
	must(t, openTest(t, opts).Close())
	return opts
}

func TestJoinedWritesAreFew(t *testing.T) {
	// A commit of 100 rows adds some ten pages, one of 3000 rows more than are held at a time.
	for _, n := range []int{1, 100, 3000} {
		writes := make(map[string]int64)
		for _, vfs := range []string{spyVFS, joinedSpyVFS} {
			c := openSpied(t, emptyDatabase(t), vfs)
			must(t, addRows(c, 0, n))
			must(t, addRows(c, n, n))
			writes[vfs] = spied.writes.Load()
			if got := countRows(t, c); got != fmt.Sprint(2*n) {
				t.Errorf("%s: %s rows", vfs, got)
			}
		}
		bound := 2 + writes[spyVFS]*4096/2/heldMax*11/10 + 3
		if got := writes[joinedSpyVFS]; got > bound {
			t.Errorf("%d rows at a time: %d writes instead of %d, want at most %d", n, got, writes[spyVFS], bound)
		}
	}
}

func TestJoinedWritesFail(t *testing.T) {
	for _, failAt := range []int64{1, 2, 3} {
		opts := emptyDatabase(t)
		c := openSpied(t, opts, joinedSpyVFS)
		must(t, addRows(c, 0, 200))
		spied.writes.Store(0)
		spied.failAt.Store(failAt)
		failed := addRows(c, 1000, 2000) != nil
		if want := failAt <= spied.writes.Load(); failed != want || !failed {
			t.Errorf("write %d: failed is %t after %d writes", failAt, failed, spied.writes.Load())
		}
		other := openForeign(t, opts.Dir)
		if got := countRows(t, other); got != "200" {
			t.Errorf("write %d: %s rows after the failure", failAt, got)
		}
		// Another process goes on where the failed transaction was, and so do we.
		must(t, addRows(other, 5000, 50))
		must(t, addRows(c, 1000, 2000))
		if got, _ := other.query("pragma integrity_check"); got != "ok" || countRows(t, other) != "2250" {
			t.Errorf("write %d: %s, %s rows", failAt, got, countRows(t, other))
		}
	}
}

// TestJoinedWritesGivenUp has frames written before their commit, which our connections never do, and gives them up:
// what is held of them must not come to light when another process has put its own in their place.
func TestJoinedWritesGivenUp(t *testing.T) {
	opts := emptyDatabase(t)
	c := openSpied(t, opts, joinedSpyVFS)
	for _, text := range []string{"pragma cache_size = 10", "pragma cache_spill = 10", "begin immediate"} {
		must(t, c.run(text))
	}
	for i := range 2000 {
		if err := c.insertNamed(storePath(i, "spilt")); err != nil {
			break // dropped: as good as given up
		}
	}
	if spied.writes.Load() == 0 {
		t.Fatal("nothing was written before the commit")
	}
	if !c.sql.AutocommitEnabled() {
		must(t, c.run("rollback"))
	}
	must(t, c.run("pragma cache_spill = false"))
	other := openForeign(t, opts.Dir)
	must(t, addRows(other, 0, 300))
	if err := addRows(c, 1000, 300); err != nil {
		must(t, addRows(c, 1000, 300)) // the first may fail for what was held
	}
	for i := range 3 {
		must(t, addRows(other, 2000+i*100, 100))
	}
	if got, _ := other.query("pragma integrity_check"); got != "ok" || countRows(t, other) != "900" {
		t.Errorf("%s, %s rows", got, countRows(t, other))
	}
}

// commits makes a database of three commits with joined writes, and gives the files and the log's length after each.
func commits(t *testing.T) (opts Options, ends []int64) {
	opts = emptyDatabase(t)
	c := openSpied(t, opts, joinedSpyVFS)
	for i := range 3 {
		must(t, addRows(c, i*10, 10))
		info, err := os.Stat(filepath.Join(opts.Dir, "db.sqlite-wal"))
		must(t, err)
		ends = append(ends, info.Size())
	}
	return opts, ends
}

// TestJoinedLogCutAnywhere opens what a crash leaves that reached the disk up to any byte of the last commit.
func TestJoinedLogCutAnywhere(t *testing.T) {
	opts, ends := commits(t)
	database, err := os.ReadFile(filepath.Join(opts.Dir, databaseFile))
	must(t, err)
	log, err := os.ReadFile(filepath.Join(opts.Dir, "db.sqlite-wal"))
	must(t, err)
	dir := t.TempDir()
	const frame = frameHeaderSize + 4096
	for cut := ends[1]; cut <= ends[2]; cut++ {
		in := (cut - ends[1]) % frame
		if in > 28 && in < frame-4 && in%1021 != 0 {
			continue // within a page
		}
		must(t, os.WriteFile(filepath.Join(dir, databaseFile), database, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "db.sqlite-wal"), log[:cut], 0o600))
		if err := os.Remove(filepath.Join(dir, "db.sqlite-shm")); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		c, err := openConn(databaseURI(dir, true, false), sqlite.OpenReadWrite)
		must(t, err)
		want := "20"
		if cut == ends[2] {
			want = "30"
		}
		got := countRows(t, c)
		if in < 2 {
			check, err := c.query("pragma integrity_check")
			must(t, err)
			got += check
			want += "ok"
		}
		if got != want {
			t.Errorf("cut at %d of %v: %s, want %s", cut, ends, got, want)
		}
		must(t, c.close())
	}
}

// TestUpstreamJoinedLog has upstream's SQLite recover such logs.
func TestUpstreamJoinedLog(t *testing.T) {
	forEachUpstream(t, func(t *testing.T, nix *upstream) {
		nix.run("nix-store", "--init")
		var paths []string
		var ends []int64
		db := openTest(t, nix.options())
		for i := range 3 {
			p := fmt.Sprintf("%s/%s", nix.store(), filepath.Base(storePath(i, "joined")))
			register(t, db, PathRow{Path: p, Hash: testHash, NarSize: 1, RegistrationTime: 1})
			info, err := os.Stat(filepath.Join(nix.dbDir(), "db.sqlite-wal"))
			must(t, err)
			paths, ends = append(paths, p), append(ends, info.Size())
		}
		files := make(map[string][]byte)
		for _, name := range []string{databaseFile, "db.sqlite-wal"} {
			text, err := os.ReadFile(filepath.Join(nix.dbDir(), name))
			must(t, err)
			files[name] = text
		}
		must(t, db.Close())
		for _, cut := range []int64{ends[1], ends[1] + 24, ends[1] + 1000, ends[1] + 4120, ends[2] - 1, ends[2]} {
			for name, text := range files {
				if name != databaseFile {
					text = text[:cut]
				}
				must(t, os.WriteFile(filepath.Join(nix.dbDir(), name), text, 0o644))
			}
			if err := os.Remove(filepath.Join(nix.dbDir(), "db.sqlite-shm")); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			invalid := nix.run(slices.Concat([]string{"nix-store", "--check-validity", "--print-invalid"}, paths)...)
			want := paths[2]
			if cut == ends[2] {
				want = ""
			}
			if invalid != want {
				t.Errorf("cut at %d of %v: invalid is %q, want %q", cut, ends, invalid, want)
			}
		}
	})
}
