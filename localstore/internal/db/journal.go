package db

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"zombiezen.com/go/sqlite/sqlitex"
)

// The write-ahead log starts anew only at a moment when all of it is in the database and nobody reads from it. Under
// load such moments do not come by themselves: the log then grows to any size, and keeps it.
const (
	// maxJournal is the size from which on such a moment is made. Below it nothing is: upstream lets 40000 pages
	// of 4096 bytes pass before it so much as copies them into the database.
	maxJournal = 192 << 20

	// minJournal is what the log may have however little space there is.
	minJournal = 4 << 20

	// journalWait is how long writers and new readers are kept waiting for those that read, journalPause how long not
	// to try again after that was in vain.
	journalWait  = 30 * time.Millisecond
	journalPause = 300 * time.Millisecond
)

// journal bounds the write-ahead log. It belongs to the writer.
type journal struct {
	db   *DB
	path string
	// maxJournal and journalWait, but in tests.
	most int64
	wait time.Duration

	paused time.Time
	skip   int // so many commits need not look
}

// journalSkip is how many commits go by without a look at a log that is not half as large as it may be.
const journalSkip = 16

func newJournal(db *DB) journal {
	return journal{db: db, path: db.file + "-wal", most: maxJournal, wait: journalWait}
}

// bound is called after a commit, with no transaction open.
func (j *journal) bound(c *conn) {
	if !j.db.opts.UseWAL {
		return
	}
	if j.skip > 0 {
		j.skip--
		return
	}
	size, limit := fileSize(j.path), min(minJournal, j.most)
	if size > limit/2 {
		limit = j.limit()
	}
	if size <= limit/2 {
		j.skip = journalSkip
	}
	if size <= limit || time.Now().Before(j.paused) {
		return
	}
	if !j.truncate(c, j.wait) {
		j.paused = time.Now().Add(journalPause)
	}
}

// limit is less where a large log would take the last space.
func (j *journal) limit() int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(j.path), &st); err != nil {
		return j.most
	}
	free := int64(min(st.Bavail, 1<<40)) * int64(st.Bsize)
	return min(j.most, max(free/4, minJournal))
}

// truncate empties the log if readers and foreign writers let go of it in time.
func (j *journal) truncate(c *conn, wait time.Duration) bool {
	c.sql.SetBusyTimeout(wait)
	defer c.sql.SetBusyTimeout(0)
	busy, err := c.pragma("wal_checkpoint(truncate)")
	return err == nil && busy == "0"
}

func fileSize(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

// maxIdleJournal is how large a log may stay when there is time to empty it.
const maxIdleJournal = 1 << 20

// maxVacuum is up to how many bytes of live pages are copied in order to give the free ones back: a few hundredths of a
// second, for which others wait.
const maxVacuum = 16 << 20

// Tidy gives space back that the database does not need, if nobody waits for the database and it costs little. Failing
// to do so is of no account.
func (db *DB) Tidy() {
	w := db.writer
	if w == nil || !w.running.TryLock() {
		return
	}
	defer w.running.Unlock()
	if w.isClosing() || len(w.requests) > 0 {
		return
	}
	if err := w.dropper.close(); err != nil {
		db.log("close database " + db.file + ": " + err.Error())
	}
	if db.wantsVacuum(w.tx.conn) {
		if err := sqlitex.ExecuteTransient(w.tx.sql, "vacuum", nil); err != nil && !isBusy(err) {
			db.log("vacuum database " + db.file + ": " + err.Error())
		}
	}
	if db.opts.UseWAL && fileSize(w.journal.path) > maxIdleJournal {
		w.journal.truncate(w.tx.conn, 0)
	}
}

// wantsVacuum tells whether more than half of the pages are free, and the others few.
func (db *DB) wantsVacuum(c *conn) bool {
	var n [3]int64
	for i, name := range []string{"freelist_count", "page_count", "page_size"} {
		text, err := c.pragma(name)
		if err != nil {
			return false
		}
		if n[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return false
		}
	}
	free, all, size := n[0], n[1], n[2]
	return free*2 > all && free*size > 1<<20 && (all-free)*size <= maxVacuum
}
