package db

import (
	"errors"
	"fmt"

	"modernc.org/libc"
	engine "modernc.org/sqlite/lib"
	"zombiezen.com/go/sqlite"
)

// With this limit the last connection to close truncates the persistent log to nothing (LocalStore::openDB).
const journalSizeLimit = "main.journal_size_limit = 1099511627776"

// keeper is a connection that stays open longer than all others of this process and only exists to have
// SQLite keep the files of the write-ahead log when it closes, as upstream has: otherwise a user who may read the
// directory but not write to it could not open the database afterwards.
//
// It speaks to the engine itself, since our usual interface cannot reach that switch. (The engine's database/sql
// driver can, but hands it memory of Go's, which fails under the race detector's pointer checks.)
// The engine keeps account of locks per process, so both kinds of connection live together.
type keeper struct {
	tls  *libc.TLS
	conn uintptr // sqlite3 *, or 0
}

func openKeeper(uri string) (*keeper, error) {
	k := &keeper{tls: libc.NewTLS()}
	if err := k.open(uri); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return k, nil
}

func (k *keeper) open(uri string) error {
	name, err := libc.CString(uri)
	if err != nil {
		return err
	}
	defer libc.Xfree(k.tls, name)
	// Eight zeroed bytes of the engine's memory: first for the connection, then for the switch.
	cell := libc.Xcalloc(k.tls, 1, 8)
	if cell == 0 {
		return errors.New("out of memory")
	}
	defer libc.Xfree(k.tls, cell)
	rc := engine.Xsqlite3_open_v2(k.tls, name, cell, engine.SQLITE_OPEN_READWRITE|engine.SQLITE_OPEN_URI, 0)
	k.conn = libc.AtomicLoadPUintptr(cell)
	if err := result(rc); err != nil {
		return err
	}
	libc.Xmemset(k.tls, cell, 0, 8)
	libc.Xmemset(k.tls, cell, 1, 1) // any positive number
	if err := result(engine.Xsqlite3_file_control(k.tls, k.conn, 0, engine.SQLITE_FCNTL_PERSIST_WAL, cell)); err != nil {
		return err
	}
	// The first read takes the shared lock that keeps others from believing to be the last.
	return k.exec("pragma " + journalSizeLimit + "; select count(*) from sqlite_master")
}

func (k *keeper) exec(script string) error {
	text, err := libc.CString(script)
	if err != nil {
		return err
	}
	defer libc.Xfree(k.tls, text)
	return result(engine.Xsqlite3_exec(k.tls, k.conn, text, 0, 0, 0))
}

func (k *keeper) close() error {
	err := result(engine.Xsqlite3_close_v2(k.tls, k.conn))
	k.tls.Close()
	return err
}

// result turns the engine's code into an error of the usual interface, so that a busy one is known as such.
func result(code int32) error {
	if err := sqlite.ResultCode(code).ToError(); err != nil {
		return fmt.Errorf("keep write-ahead log: %w", err)
	}
	return nil
}
