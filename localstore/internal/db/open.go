package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
	"zombiezen.com/go/sqlite"

	"nixdaemon/localstore/pathlock"
)

const (
	schemaVersion = 10
	databaseFile  = "db.sqlite"
	schemaFile    = "schema"
	bigLockFile   = "big-lock"
	reservedFile  = "reserved"
)

// Options says where the database is and how it is used.
type Options struct {
	// Dir is the database directory, usually /nix/var/nix/db. Open creates it, unless ReadOnly.
	Dir string
	// ReadOnly opens the database as a file that nobody changes: no locks, no upgrade, no write-ahead log.
	ReadOnly bool
	// UseWAL selects the write-ahead log; otherwise a rollback journal and dot-file locks,
	// which work on network file systems (setting use-sqlite-wal).
	UseWAL bool
	// FsyncMetadata makes SQLite sync at checkpoints, so that a power cut cannot corrupt the database
	// (setting fsync-metadata).
	FsyncMetadata bool
	// WantCA creates the tables for realisations (experimental feature ca-derivations).
	WantCA bool
	// ReservedSize is the size in bytes of the file that the garbage collector deletes to have room for its work
	// (setting gc-reserved-space). A negative size leaves the file alone.
	ReservedSize int64
	// Logger receives the texts of waits and warnings; nil drops them. It is called from any goroutine.
	Logger func(msg string)
}

// DB is an open database. Its methods may be called from any goroutine.
type DB struct {
	// Static after Open.
	opts    Options
	file    string // path of db.sqlite
	uri     string
	log     func(string)
	bigLock *os.File // nil if read-only
	opened  unix.Stat_t
	born    int64 // birth time of db.sqlite, 0 if unknown
	byHash  bool  // the tables of realisations keyed by hash exist
	byPath  bool  // the table of realisations keyed by path exists
	writer  *writer
	keeper  *keeper
	changes *changeWatch
	pool    pool
	counts  counts

	closeOnce sync.Once
	closeErr  error
}

// Open opens the database, creating or upgrading it as needed, and waits for other processes' upgrades.
// The caller must Close it.
func Open(ctx context.Context, opts Options) (_ *DB, err error) {
	db := &DB{opts: opts, file: filepath.Join(opts.Dir, databaseFile), log: opts.Logger}
	if db.log == nil {
		db.log = func(string) {}
	}
	db.uri = databaseURI(opts.Dir, opts.UseWAL, opts.ReadOnly)
	db.pool.init(db)
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	if opts.ReadOnly {
		err = db.openReadOnly(ctx)
	} else {
		err = db.openWritable(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Stat(db.file, &db.opened); err != nil {
		return nil, fmt.Errorf("stat %s: %w", db.file, err)
	}
	db.born = birthTime(db.file)
	return db, nil
}

func (db *DB) openReadOnly(ctx context.Context) error {
	version, err := db.readSchema()
	if err != nil {
		return err
	}
	switch {
	case version == 0:
		return errors.New("database does not exist, and cannot be created in read-only mode")
	case version < schemaVersion:
		return errors.New("database schema needs migrating, but this cannot be done in read-only mode")
	case version > schemaVersion:
		return newerSchema(version)
	}
	if err := checkAccess(db.opts.Dir, unix.R_OK); err != nil {
		return err
	}
	db.changes = &changeWatch{}
	return db.read(ctx, db.findTables)
}

func (db *DB) openWritable(ctx context.Context) error {
	if err := os.MkdirAll(db.opts.Dir, 0o777); err != nil {
		return fmt.Errorf("create database directory: %w", err)
	}
	reserve(filepath.Join(db.opts.Dir, reservedFile), db.opts.ReservedSize)
	if err := db.takeBigLock(ctx); err != nil {
		return err
	}
	c, err := db.openWriterConn(ctx)
	if err != nil {
		return err
	}
	db.writer = newWriter(db, c)
	if db.opts.UseWAL {
		// From here on connections may close in any order without deleting the log.
		err = db.retryBusy(ctx, func() (err error) { db.keeper, err = openKeeper(db.uri); return err })
		if err != nil {
			return fmt.Errorf("open database %s: %w", db.file, err)
		}
	}
	if db.changes, err = db.watchChanges(ctx); err != nil {
		return fmt.Errorf("watch database %s: %w", db.file, err)
	}
	db.writer.start()
	return nil
}

// openWriterConn brings the database to the current schema and returns the connection that did.
func (db *DB) openWriterConn(ctx context.Context) (*conn, error) {
	version, err := db.readSchema()
	if err != nil {
		return nil, err
	}
	if err := checkVersion(version); err != nil {
		return nil, err
	}
	if err := checkAccess(db.opts.Dir, unix.R_OK|unix.W_OK); err != nil {
		return nil, err
	}
	flags := sqlite.OpenReadWrite
	if version == 0 {
		flags |= sqlite.OpenCreate
	}
	uri, err := writerURI(db.opts.Dir, db.opts.UseWAL)
	if err != nil {
		return nil, err
	}
	c, err := openConn(uri, flags)
	if err != nil {
		return nil, db.cannotOpen(err)
	}
	if version > 0 {
		err = db.checkTables(c, version)
	}
	if err == nil {
		err = db.prepareSchema(ctx, c, version)
	}
	if err != nil {
		return nil, errors.Join(db.explain(err), c.close())
	}
	return c, nil
}

func (db *DB) prepareSchema(ctx context.Context, c *conn, version int) error {
	if err := db.retryBusy(ctx, func() error { return setPragmas(c, db.opts) }); err != nil {
		return fmt.Errorf("open database %s: %w", db.file, err)
	}
	switch {
	case version == 0:
		if err := db.createSchema(ctx, c); err != nil {
			return fmt.Errorf("create database %s: %w", db.file, err)
		}
	case version < schemaVersion:
		if err := db.upgradeLocked(ctx, c); err != nil {
			return fmt.Errorf("upgrade database %s: %w", db.file, err)
		}
	}
	if err := db.applyMigrations(ctx, c); err != nil {
		return fmt.Errorf("upgrade database %s: %w", db.file, err)
	}
	return db.findTables(c)
}

// setPragmas repeats what upstream sets on each connection (LocalStore::openDB).
func setPragmas(c *conn, opts Options) error {
	mode := "truncate"
	if opts.UseWAL {
		mode = "wal"
	}
	// temp_store concerns the journal of single statements, of which SQLite otherwise allocates 64 KiB for every
	// insert that a foreign key could stop: half the cost of registering.
	for _, text := range []string{"foreign_keys = 1", "synchronous = " + opts.synchronous(), "temp_store = memory"} {
		if _, err := c.pragma(text); err != nil {
			return err
		}
	}
	// Setting a mode that is already set would still take locks.
	if old, err := c.pragma("main.journal_mode"); err != nil {
		return err
	} else if old != mode {
		if _, err := c.pragma("main.journal_mode = " + mode); err != nil {
			return err
		}
	}
	if !opts.UseWAL {
		return nil
	}
	// What a transaction changes stays in memory until it is committed, as [joinedVFS] needs it.
	for _, text := range []string{journalSizeLimit, "wal_autocheckpoint = 40000", "cache_spill = false"} {
		if _, err := c.pragma(text); err != nil {
			return err
		}
	}
	return nil
}

// cannotOpen says what is in the place of a database that cannot be opened, which SQLite does not.
func (db *DB) cannotOpen(err error) error {
	why := err.Error()
	var st unix.Stat_t
	switch e := unix.Stat(db.file, &st); {
	case e == unix.ENOENT:
		why = fmt.Sprintf("it is gone, though \"%s\" beside it says that there was one\n"+
			"Put back a backup of the whole directory. Only if there is nothing in the store that anybody needs, remove \"%s\".", schemaFile, schemaFile)
	case e != nil:
		why = e.Error()
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		why = "it is not a regular file"
	}
	return &openError{fmt.Sprintf("cannot open SQLite database \"%s\": %s", db.file, why), err}
}

// openError has a text of its own.
type openError struct {
	text string
	err  error
}

func (e *openError) Error() string { return e.text }

func (e *openError) Unwrap() error { return e.err }

func (db *DB) takeBigLock(ctx context.Context) error {
	f, err := pathlock.OpenLockFile(filepath.Join(db.opts.Dir, bigLockFile), true)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return &TracedError{
			Trace: "This command may have been run as non-root in a single-user Nix installation,\n" +
				"or the Nix daemon may have crashed.",
			Err: err,
		}
	}
	if err != nil {
		return err
	}
	db.bigLock = f
	return pathlock.Flock(ctx, f, pathlock.Shared, func() { db.log("waiting for the big Nix store lock...") })
}

// Stale reports whether the file that was opened no longer is the one in the database directory:
// it was deleted or replaced, or its directory was. What a stale database answers is history; open it again.
func (db *DB) Stale() bool {
	var now unix.Stat_t
	if err := unix.Stat(db.file, &now); err != nil {
		return true
	}
	return now.Dev != db.opened.Dev || now.Ino != db.opened.Ino
}

// Close waits for the changes that have begun and for readers, fails those that still wait, and closes the files.
// A second call returns what the first returned.
func (db *DB) Close() error {
	db.closeOnce.Do(func() { db.closeErr = db.close() })
	return db.closeErr
}

func (db *DB) close() error {
	var errs []error
	if db.writer != nil {
		errs = append(errs, db.writer.close())
	}
	errs = append(errs, db.pool.close())
	if db.changes != nil {
		errs = append(errs, db.changes.close())
	}
	if db.keeper != nil {
		// Last: it checkpoints, and leaves the emptied log behind.
		errs = append(errs, db.keeper.close())
	}
	if db.bigLock != nil {
		errs = append(errs, db.bigLock.Close())
	}
	return errors.Join(errs...)
}

// Reserve makes the reserved file again (Options.ReservedSize) if it is not there and there is space for it.
func (db *DB) Reserve() {
	if !db.opts.ReadOnly {
		reserve(filepath.Join(db.opts.Dir, reservedFile), db.opts.ReservedSize)
	}
}
