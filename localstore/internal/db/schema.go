package db

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
	"zombiezen.com/go/sqlite"

	"nixdaemon/localstore/pathlock"
)

// Names that upstream's releases look for in SchemaMigrations.
const (
	migrationByHash = "20220326-ca-derivations" // 2.9 to 2.34
	migrationByPath = "20251017-ca-derivations" // 2.35
)

// readSchema returns the number in the schema file, 0 if there is none.
func (db *DB) readSchema() (int, error) {
	path := filepath.Join(db.opts.Dir, schemaFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	version, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("\"%s\" is corrupt\n"+
			"It must hold the number of the database's schema and nothing else. See whether the disk is full or failing.\n"+
			"If \"%s\" beside it is sound, write %d into it, without a newline.", path, databaseFile, schemaVersion)
	}
	return int(version), nil
}

func newerSchema(version int) error {
	return fmt.Errorf("current Nix store schema is version %d, but I only support %d\n"+
		"A newer release has upgraded this store: use that one, or a version of this daemon that knows the schema.", version, schemaVersion)
}

func checkVersion(version int) error {
	switch {
	case version > schemaVersion:
		return newerSchema(version)
	case version == 0 || version >= 6:
		return nil
	case version >= 5:
		return errors.New("Your Nix store has a database in flat file format,\n" +
			"which is no longer supported. To convert to the new format,\n" +
			"please upgrade Nix to version 1.11 first.")
	default:
		return errors.New("Your Nix store has a database in Berkeley DB format,\n" +
			"which is no longer supported. To convert to the new format,\n" +
			"please upgrade Nix to version 0.12 first.")
	}
}

func checkAccess(dir string, mode uint32) error {
	if err := unix.Access(dir, mode); err != nil {
		return sysError(fmt.Sprintf("Nix database directory \"%s\" is not writable", dir), err)
	}
	return nil
}

// writeSchema replaces the schema file. Upstream writes it in place; by way of a rename, a crash cannot leave it empty.
func (db *DB) writeSchema() error {
	path := filepath.Join(db.opts.Dir, schemaFile)
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(schemaVersion))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, path)
	}
	return err
}

func (db *DB) createSchema(ctx context.Context, c *conn) error {
	err := db.durably(c, func() error {
		return db.inTransaction(ctx, c, func() error { return c.script(sqlText("create_schema")) })
	})
	if err != nil {
		return err
	}
	return db.writeSchema()
}

// upgradeLocked brings schema 6 to 9 to the current one under the exclusive lock.
func (db *DB) upgradeLocked(ctx context.Context, c *conn) error {
	ok, err := pathlock.TryFlock(db.bigLock, pathlock.Exclusive)
	if err != nil {
		return err
	}
	if !ok {
		db.log("waiting for exclusive access to the Nix store...")
		// Two processes that each wait for the other's shared lock would wait for ever.
		if _, err := pathlock.TryFlock(db.bigLock, pathlock.Unlocked); err != nil {
			return err
		}
		if err := pathlock.Flock(ctx, db.bigLock, pathlock.Exclusive, nil); err != nil {
			return err
		}
	}
	// Another process may have upgraded in the meantime.
	version, err := db.readSchema()
	if err == nil && version < schemaVersion {
		err = db.durably(c, func() error {
			return db.inTransaction(ctx, c, func() error { return upgrade(c, version) })
		})
		if err == nil {
			err = db.writeSchema()
		}
	}
	return errors.Join(err, pathlock.Flock(ctx, db.bigLock, pathlock.Shared, nil))
}

// upgrade adds what the schema of that version lacks. It looks before it adds,
// because a crash may have come between an earlier upgrade and its note in the schema file.
func upgrade(c *conn, version int) error {
	columns, err := c.strings(stmtListPathColumns, nil)
	if err != nil {
		return err
	}
	for _, add := range []struct {
		before       int
		column, kind string
	}{
		{8, "ultimate", "integer"},
		{8, "sigs", "text"},
		{10, "ca", "text"},
	} {
		if version >= add.before || slices.Contains(columns, add.column) {
			continue
		}
		if err := c.script("alter table ValidPaths add column " + add.column + " " + add.kind); err != nil {
			return err
		}
	}
	if version < 9 {
		return c.script("drop table if exists FailedPaths")
	}
	return nil
}

// applyMigrations does what upstream keeps account of in SchemaMigrations rather than in the schema's number.
// Like 2.34, and unlike 2.35, it needs no exclusive lock: SQLite's own transaction suffices, and a foreign daemon
// that runs for months would never let go of its shared one.
func (db *DB) applyMigrations(ctx context.Context, c *conn) error {
	pending, err := db.pendingMigrations(ctx, c)
	if err != nil || pending == nil {
		return err
	}
	return db.inTransaction(ctx, c, func() error {
		if err := c.script(sqlText("create_migrations")); err != nil {
			return err
		}
		for _, m := range pending {
			if err := c.script(sqlText(m.script)); err != nil {
				return err
			}
			err := c.exec(stmtInsertMigration, func(s *sqlite.Stmt) { s.BindText(1, m.name) })
			if err != nil {
				return err
			}
		}
		return nil
	})
}

type migration struct{ name, script string }

// pendingMigrations returns nil if nothing is to be done, and an empty list if only the table is missing.
func (db *DB) pendingMigrations(ctx context.Context, c *conn) (pending []migration, err error) {
	var tables, done []string
	err = db.retryBusy(ctx, func() (err error) {
		tables, err = c.strings(stmtListTables, nil)
		if err == nil && slices.Contains(tables, "SchemaMigrations") {
			done, err = c.strings(stmtListMigrations, nil)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if !slices.Contains(tables, "SchemaMigrations") {
		pending = []migration{}
	}
	if !db.opts.WantCA {
		return pending, nil
	}
	for _, m := range []migration{
		{migrationByHash, "create_ca_by_hash"},
		{migrationByPath, "create_ca_by_path"},
	} {
		if !slices.Contains(done, m.name) {
			pending = append(pending, m)
		}
	}
	return pending, nil
}

// inTransaction runs f, which changes the schema, in a transaction of c.
func (db *DB) inTransaction(ctx context.Context, c *conn, f func() error) error {
	if err := db.retryBusy(ctx, func() error { return c.exec(stmtBegin, nil) }); err != nil {
		return err
	}
	err := f()
	if err == nil {
		err = db.retryBusy(ctx, func() error { return c.exec(stmtCommit, nil) })
	}
	if err != nil && !c.sql.AutocommitEnabled() {
		err = errors.Join(err, c.exec(stmtRollback, nil))
	}
	return err
}

// findTables notes which generations of realisations this database has.
func (db *DB) findTables(c *conn) error {
	tables, err := c.strings(stmtListTables, nil)
	if err != nil {
		return err
	}
	db.byHash = slices.Contains(tables, "Realisations")
	db.byPath = slices.Contains(tables, "BuildTraceV3")
	return nil
}
