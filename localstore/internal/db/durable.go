package db

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// SyncLog makes durable what was committed before. Upstream's setting of SQLite syncs the write-ahead log at checkpoints
// alone, so that a power cut can undo changes that were committed long ago. Without such a log commits are durable by
// themselves, if they are at all.
func (db *DB) SyncLog() error {
	if db.opts.ReadOnly || !db.opts.UseWAL {
		return nil
	}
	// SQLite's locks, which a process loses by closing any descriptor of the file, are not on this one.
	f, err := os.OpenFile(db.file+"-wal", os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the database was deleted beneath us
	}
	if err != nil {
		return fmt.Errorf("sync database: %w", err)
	}
	err = os.NewSyscallError("fdatasync", fdatasync(f))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("sync database %s: %w", db.file, err)
	}
	return nil
}

// durably runs f, which changes the schema and commits, so that its changes are durable before the schema file tells of
// them: a file that says there is a database, beside an empty one, would look like damage.
func (db *DB) durably(c *conn, f func() error) error {
	if _, err := c.pragma("synchronous = full"); err != nil {
		return err
	}
	err := f()
	if err == nil && db.opts.UseWAL {
		_, err = c.pragma("wal_checkpoint(passive)")
	}
	if err == nil {
		err = errors.Join(syncDir(db.opts.Dir), syncDir(filepath.Dir(db.opts.Dir)))
	}
	_, e := c.pragma("synchronous = " + db.opts.synchronous())
	return errors.Join(err, e)
}

// synchronous is upstream's value (LocalStore::openDB).
func (o *Options) synchronous() string {
	if o.FsyncMetadata {
		return "normal"
	}
	return "off"
}

// syncDir makes the names in a directory durable, where the file system has such a thing.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	err = f.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, f.Close())
}
