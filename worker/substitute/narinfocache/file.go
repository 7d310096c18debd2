package narinfocache

import (
	_ "embed"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

//go:embed schema.sql
var schema string

const (
	// busyTimeout is how long another process may keep us from writing before an answer is not kept.
	busyTimeout = 5 * time.Second
	// reopenAfter is how long a file that cannot be used is left alone, unless it is replaced.
	reopenAfter = time.Minute
)

// file is upstream's cache file. Its methods do nothing while it cannot be used.
type file struct {
	path   string
	useWAL bool
	log    func(error)

	mu     sync.Mutex
	conn   *sqlite.Conn // nil: not open
	as     os.FileInfo  // what was opened
	failed time.Time    // when it could last not be used; zero if it never was tried
	ids    map[string]int64
	purged bool

	// writing has a connection of its own, so that questions do not wait for it.
	writing   sync.Mutex
	writeConn *sqlite.Conn
	writeAs   os.FileInfo
}

// replaced tells whether the file that was open is there no more. It is closed then.
func (f *file) replaced() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn == nil {
		return false
	}
	now, ok := identity(f.path)
	if ok && os.SameFile(f.as, now) {
		return false
	}
	f.closeLocked()
	f.failed = time.Time{}
	return true
}

func (f *file) closeLocked() {
	if f.conn != nil {
		f.conn.Close()
	}
	f.conn, f.as, f.ids = nil, nil, nil
}

// with gives f2 the open file. Any failure closes it for a while.
func (f *file) with(do func(*sqlite.Conn) error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn == nil && !f.openLocked() {
		return false
	}
	if err := do(f.conn); err != nil {
		f.giveUpLocked(err)
		return false
	}
	return true
}

func (f *file) giveUpLocked(err error) {
	f.closeLocked()
	if f.failed.IsZero() {
		f.log(fmt.Errorf("use %s: %w", f.path, err))
	}
	f.failed = time.Now()
}

func (f *file) openLocked() bool {
	if !f.failed.IsZero() && time.Since(f.failed) < reopenAfter {
		return false
	}
	conn, as, err := f.open()
	if err != nil {
		f.giveUpLocked(err)
		return false
	}
	f.conn, f.as, f.ids = conn, as, make(map[string]int64)
	return true
}

func (f *file) open() (*sqlite.Conn, os.FileInfo, error) {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o777); err != nil {
		return nil, nil, err
	}
	query := url.Values{}
	if !f.useWAL {
		query.Set("vfs", "unix-dotfile")
	}
	u := url.URL{Scheme: "file", Path: f.path, RawQuery: query.Encode()}
	conn, err := sqlite.OpenConn(u.String(), sqlite.OpenReadWrite|sqlite.OpenCreate|sqlite.OpenURI)
	if err != nil {
		return nil, nil, err
	}
	conn.SetBusyTimeout(busyTimeout)
	if err := f.prepare(conn); err != nil {
		conn.Close()
		return nil, nil, err
	}
	as, err := os.Stat(f.path)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, as, nil
}

func (f *file) prepare(conn *sqlite.Conn) error {
	pragmas := []string{"pragma synchronous = off"}
	if f.useWAL {
		pragmas = append(pragmas, "pragma main.journal_mode = wal")
	}
	for _, p := range pragmas {
		if err := sqlitex.ExecuteTransient(conn, p, nil); err != nil {
			return err
		}
	}
	return sqlitex.ExecuteScript(conn, schema, nil)
}

func (f *file) close() error {
	f.writing.Lock()
	defer f.writing.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writeConn != nil {
		f.writeConn.Close()
		f.writeConn = nil
	}
	f.closeLocked()
	f.failed = time.Now() // nobody opens it again
	return nil
}

// id is the row of a binary cache; false if there is none.
func (f *file) id(conn *sqlite.Conn, uri string) (int64, bool, error) {
	if id, ok := f.ids[uri]; ok {
		return id, true, nil
	}
	var id int64
	found := false
	err := sqlitex.Execute(conn, "select id from BinaryCaches where url = ?", &sqlitex.ExecOptions{
		Args:       []any{uri},
		ResultFunc: func(s *sqlite.Stmt) error { id, found = s.ColumnInt64(0), true; return nil },
	})
	if found && err == nil {
		f.ids[uri] = id
	}
	return id, found, err
}

// store gives a binary cache's row if it is younger than oldest.
func (f *file) store(uri string, oldest int64) (found Store, ok bool) {
	f.with(func(conn *sqlite.Conn) error {
		return sqlitex.Execute(conn, "select storeDir, wantMassQuery, priority from BinaryCaches where url = ? and timestamp > ?", &sqlitex.ExecOptions{
			Args: []any{uri, oldest},
			ResultFunc: func(s *sqlite.Stmt) error {
				found = Store{storepath.Dir(s.ColumnText(0)), s.ColumnInt64(1) != 0, int(s.ColumnInt64(2))}
				ok = true
				return nil
			},
		})
	})
	return found, ok
}

func (f *file) setStore(uri string, s Store, now int64) {
	want := 0
	if s.WantMassQuery {
		want = 1
	}
	f.with(func(conn *sqlite.Conn) error {
		return sqlitex.Execute(conn, "insert into BinaryCaches(url, timestamp, storeDir, wantMassQuery, priority) values (?1, ?2, ?3, ?4, ?5) "+
			"on conflict (url) do update set timestamp = ?2, storeDir = ?3, wantMassQuery = ?4, priority = ?5",
			&sqlitex.ExecOptions{Args: []any{uri, now, string(s.Dir), want, s.Priority}})
	})
}

// info looks for a narinfo. A row that cannot be understood is as good as none.
func (f *file) info(uri, hashPart string, now int64, ttls TTLs) (a answer, ok bool) {
	f.with(func(conn *sqlite.Conn) error {
		id, found, err := f.id(conn, uri)
		if err != nil || !found {
			return err
		}
		return sqlitex.Execute(conn, "select present, namePart, url, compression, fileHash, fileSize, narHash, narSize, refs, deriver, sigs, ca, timestamp from NARs "+
			"where cache = ? and hashPart = ? and ((present = 0 and timestamp > ?) or (present = 1 and timestamp > ?))", &sqlitex.ExecOptions{
			Args: []any{id, hashPart, now - int64(ttls.Negative), now - int64(ttls.Positive)},
			ResultFunc: func(s *sqlite.Stmt) error {
				a.time = s.ColumnInt64(12)
				if s.ColumnInt64(0) == 0 {
					ok = true
					return nil
				}
				info, err := infoFromRow(hashPart, s)
				if err == nil {
					a.info, ok = info, true
				}
				return nil
			},
		})
	})
	return a, ok
}

func infoFromRow(hashPart string, s *sqlite.Stmt) (*narinfo.NarInfo, error) {
	n := &narinfo.NarInfo{URL: s.ColumnText(2), Compression: s.ColumnText(3), FileSize: uint64(s.ColumnInt64(5))}
	var err error
	if n.Path, err = storepath.ParseBase(hashPart + "-" + s.ColumnText(1)); err != nil {
		return nil, err
	}
	if text := s.ColumnText(4); text != "" {
		if n.FileHash, err = nixhash.Parse(text); err != nil {
			return nil, err
		}
	}
	if n.NarHash, err = nixhash.Parse(s.ColumnText(6)); err != nil {
		return nil, err
	}
	n.NarSize = uint64(s.ColumnInt64(7))
	for ref := range strings.FieldsSeq(s.ColumnText(8)) {
		p, err := storepath.ParseBase(ref)
		if err != nil {
			return nil, err
		}
		n.References = append(n.References, p)
	}
	n.References = storepath.SortUnique(n.References)
	if text := s.ColumnText(9); text != "" {
		if n.Deriver, err = storepath.ParseBase(text); err != nil {
			return nil, err
		}
	}
	for text := range strings.FieldsSeq(s.ColumnText(10)) {
		sig, err := pathinfo.ParseSignature(text)
		if err != nil {
			return nil, err
		}
		n.Sigs = append(n.Sigs, sig)
	}
	n.Sigs = pathinfo.SortSignatures(n.Sigs)
	if text := s.ColumnText(11); text != "" {
		n.CA, err = storepath.ParseContentAddress(text)
	}
	return n, err
}

func (f *file) realisation(uri, output string, now int64, ttls TTLs) (a answer, ok bool) {
	f.with(func(conn *sqlite.Conn) error {
		id, found, err := f.id(conn, uri)
		if err != nil || !found {
			return err
		}
		return sqlitex.Execute(conn, "select content from Realisations where cache = ? and outputId = ? and "+
			"((content is null and timestamp > ?) or (content is not null and timestamp > ?))", &sqlitex.ExecOptions{
			Args:       []any{id, output, now - int64(ttls.Negative), now - int64(ttls.Positive)},
			ResultFunc: func(s *sqlite.Stmt) error { a.content, ok = s.ColumnText(0), true; return nil },
		})
	})
	return a, ok
}

// insert writes answers in one transaction, and purges old ones if nobody has lately.
func (f *file) insert(batch []entry, old purge) {
	f.writing.Lock()
	defer f.writing.Unlock()
	conn := f.writer()
	if conn == nil {
		return
	}
	if err := f.insertInto(conn, batch, old); err != nil {
		f.writeConn.Close()
		f.writeConn = nil
		f.mu.Lock()
		f.giveUpLocked(err)
		f.mu.Unlock()
	}
}

// writer gives the connection that writes to the very file that is read, nil if there is none. It is called with writing
// held.
func (f *file) writer() *sqlite.Conn {
	f.mu.Lock()
	if f.conn == nil && !f.openLocked() {
		f.mu.Unlock()
		return nil
	}
	as := f.as
	f.mu.Unlock()
	if f.writeConn != nil {
		if os.SameFile(as, f.writeAs) {
			return f.writeConn
		}
		f.writeConn.Close()
		f.writeConn = nil
	}
	conn, as, err := f.open()
	if err != nil {
		return nil
	}
	f.writeConn, f.writeAs, f.purged = conn, as, false
	return conn
}

func (f *file) insertInto(conn *sqlite.Conn, batch []entry, old purge) (err error) {
	end, err := sqlitex.ImmediateTransaction(conn)
	if err != nil {
		return err
	}
	defer end(&err)
	if !f.purged {
		if err := purgeOld(conn, old); err != nil {
			return err
		}
		f.purged = true
	}
	ids := make(map[string]int64)
	for i := range batch {
		e := &batch[i]
		id, err := cacheID(conn, ids, e.uri)
		if err != nil {
			return err
		}
		if id == 0 {
			continue // it has just been forgotten
		}
		if err := insertEntry(conn, id, e); err != nil {
			return err
		}
	}
	return nil
}

func cacheID(conn *sqlite.Conn, ids map[string]int64, uri string) (int64, error) {
	if id, ok := ids[uri]; ok {
		return id, nil
	}
	err := sqlitex.Execute(conn, "select id from BinaryCaches where url = ?", &sqlitex.ExecOptions{
		Args:       []any{uri},
		ResultFunc: func(s *sqlite.Stmt) error { ids[uri] = s.ColumnInt64(0); return nil },
	})
	return ids[uri], err
}

func insertEntry(conn *sqlite.Conn, id int64, e *entry) error {
	if e.realisation {
		var content any
		if e.content != "" {
			content = e.content
		}
		return sqlitex.Execute(conn, "insert or replace into Realisations(cache, outputId, content, timestamp) values (?, ?, ?, ?)",
			&sqlitex.ExecOptions{Args: []any{id, e.name, content, e.time}})
	}
	if e.info == nil {
		return sqlitex.Execute(conn, "insert or replace into NARs(cache, hashPart, timestamp, present) values (?, ?, ?, 0)",
			&sqlitex.ExecOptions{Args: []any{id, e.name, e.time}})
	}
	n := e.info
	return sqlitex.Execute(conn, "insert or replace into NARs(cache, hashPart, namePart, url, compression, fileHash, fileSize, narHash, "+
		"narSize, refs, deriver, sigs, ca, timestamp, present) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
		&sqlitex.ExecOptions{Args: []any{id, e.name, n.Path.Name(), n.URL, n.Compression, orNull(hashText(n.FileHash)), sizeOrNull(n.FileSize),
			n.NarHash.String(), int64(n.NarSize), bases(n.References), orNull(n.Deriver.Base()), signatures(n.Sigs), caText(n.CA), e.time}})
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func sizeOrNull(n uint64) any {
	if n == 0 {
		return nil
	}
	return int64(n)
}

func hashText(h nixhash.Hash) string {
	if h.IsZero() {
		return ""
	}
	return h.String()
}

func caText(ca storepath.ContentAddress) string {
	if ca.IsZero() {
		return ""
	}
	return ca.String()
}

func bases(paths []storepath.Path) string {
	names := make([]string, len(paths))
	for i, p := range paths {
		names[i] = p.Base()
	}
	return strings.Join(names, " ")
}

func signatures(sigs []pathinfo.Signature) string {
	return strings.Join(pathinfo.SignatureStrings(sigs), " ")
}

// purgeOld deletes rows that count for nobody, at most once a day.
func purgeOld(conn *sqlite.Conn, old purge) error {
	due := true
	err := sqlitex.Execute(conn, "select value from LastPurge", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error { due = s.ColumnInt64(0) < old.now-purgeInterval; return nil },
	})
	if err != nil || !due {
		return err
	}
	err = sqlitex.Execute(conn, "delete from NARs where ((present = 0 and timestamp < ?) or (present = 1 and timestamp < ?))",
		&sqlitex.ExecOptions{Args: []any{old.negative, old.positive}})
	if err != nil {
		return err
	}
	return sqlitex.Execute(conn, "insert or replace into LastPurge(dummy, value) values ('', ?)", &sqlitex.ExecOptions{Args: []any{old.now}})
}
