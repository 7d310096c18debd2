package db

import (
	"net/url"
	"path/filepath"
	"strings"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// conn is a connection with its prepared statements. One goroutine at a time may use it.
// Statements are always left reset, so that no read transaction lingers.
type conn struct {
	sql      *sqlite.Conn
	prepared [stmtCount]*sqlite.Stmt
	names    *nameCache // nil on the writing connection, which sees rows that may yet be rolled back
}

// openConn opens the file with upstream's flags. Busy errors come back at once: retry is the caller's, see busy.go.
func openConn(uri string, flags sqlite.OpenFlags) (*conn, error) {
	c, err := sqlite.OpenConn(uri, flags|sqlite.OpenURI)
	if err != nil {
		return nil, err
	}
	c.SetBusyTimeout(0)
	return &conn{sql: c}, nil
}

// databaseURI is the name under which SQLite opens the database in dir.
// Without a write-ahead log the database is likely on a network file system, whose locks cannot be trusted.
func databaseURI(dir string, useWAL, immutable bool) string {
	query := url.Values{}
	if immutable {
		query.Set("immutable", "1")
	} else if !useWAL {
		query.Set("vfs", "unix-dotfile")
	}
	u := url.URL{Scheme: "file", Path: filepath.Join(dir, databaseFile), RawQuery: query.Encode()}
	return u.String()
}

// writerURI is the same for the connection that writes.
func writerURI(dir string, useWAL bool) (string, error) {
	uri := databaseURI(dir, useWAL, false)
	if !useWAL {
		return uri, nil
	}
	// It has no query, or there would be another interface in it already.
	return uri + "?vfs=" + joinedVFS, registerJoined(joinedVFS, "unix")
}

func (c *conn) close() error { return c.sql.Close() }

// stmt returns the prepared statement, ready for its parameters to be bound.
func (c *conn) stmt(id statement) (*sqlite.Stmt, error) {
	if s := c.prepared[id]; s != nil {
		return s, nil
	}
	s, err := c.sql.Prepare(strings.TrimSpace(sqlText(statementFiles[id])))
	if err != nil {
		return nil, err
	}
	c.prepared[id] = s
	return s, nil
}

// exec runs a statement that returns no rows, after bind (if any) has set its parameters.
func (c *conn) exec(id statement, bind func(*sqlite.Stmt)) error {
	s, err := c.stmt(id)
	if err != nil {
		return err
	}
	if bind != nil {
		bind(s)
	}
	_, err = s.Step()
	s.Reset() // repeats the error of Step, if any
	return err
}

// each calls row for every row of a query whose only parameter, if it has one, is arg.
func (c *conn) each(id statement, arg any, row func(*sqlite.Stmt) error) error {
	s, err := c.stmt(id)
	if err != nil {
		return err
	}
	defer s.Reset()
	switch arg := arg.(type) {
	case string:
		s.BindText(1, arg)
	case int64:
		s.BindInt64(1, arg)
	}
	for {
		more, err := s.Step()
		if err != nil || !more {
			return err
		}
		if err := row(s); err != nil {
			return err
		}
	}
}

// strings returns the first column of a query.
func (c *conn) strings(id statement, arg any) ([]string, error) {
	var all []string
	err := c.each(id, arg, func(s *sqlite.Stmt) error {
		all = append(all, s.ColumnText(0))
		return nil
	})
	return all, err
}

// script runs statements that are needed once.
func (c *conn) script(text string) error {
	return sqlitex.ExecuteScript(c.sql, text, nil)
}

// pragma runs one pragma and returns the first column of its first row, if it has one.
func (c *conn) pragma(text string) (string, error) {
	var value string
	err := sqlitex.ExecuteTransient(c.sql, "pragma "+text, &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error {
			value = s.ColumnText(0)
			return nil
		},
	})
	return value, err
}

func bindNullText(s *sqlite.Stmt, param int, value string) {
	if value == "" {
		s.BindNull(param)
	} else {
		s.BindText(param, value)
	}
}

func bindNullInt(s *sqlite.Stmt, param int, value int64) {
	if value == 0 {
		s.BindNull(param)
	} else {
		s.BindInt64(param, value)
	}
}
