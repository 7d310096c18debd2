package db

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	modernc "modernc.org/sqlite"
)

// With this limit the last connection to close truncates the persistent log to nothing (LocalStore::openDB).
const journalSizeLimit = "main.journal_size_limit = 1099511627776"

// keeper is a connection that stays open longer than all others of this process and only exists to have
// SQLite keep the files of the write-ahead log when it closes, as upstream has: otherwise a user who may read the
// directory but not write to it could not open the database afterwards.
// It uses the engine's own driver since our usual interface cannot reach that switch.
// The engine keeps account of locks per process, so connections of both interfaces live together.
type keeper struct{ conn driver.Conn }

func openKeeper(uri string) (*keeper, error) {
	c, err := (&modernc.Driver{}).Open(uri)
	if err != nil {
		return nil, err
	}
	k := &keeper{c}
	if err := k.prepare(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return k, nil
}

func (k *keeper) prepare() error {
	control, ok := k.conn.(modernc.FileControl)
	if !ok {
		return fmt.Errorf("SQLite driver %T has no file control", k.conn)
	}
	if _, err := control.FileControlPersistWAL("main", 1); err != nil {
		return err
	}
	if err := k.query("pragma " + journalSizeLimit); err != nil {
		return err
	}
	// The first read takes the shared lock that keeps others from believing to be the last.
	return k.query("select count(*) from sqlite_master")
}

func (k *keeper) query(text string) error {
	q, ok := k.conn.(driver.QueryerContext)
	if !ok {
		return fmt.Errorf("SQLite driver %T cannot query", k.conn)
	}
	rows, err := q.QueryContext(context.Background(), text, nil)
	if err != nil {
		return err
	}
	row := make([]driver.Value, len(rows.Columns()))
	for err == nil {
		err = rows.Next(row)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, rows.Close())
}

func (k *keeper) close() error { return k.conn.Close() }
