package db

import (
	"sync/atomic"
	"time"
)

// Stats count what the database has done since it was opened.
type Stats struct {
	// Commits are transactions that changed something, Changes the calls of
	// [DB.Write] in them.
	Commits, Changes uint64
	// BusyWaits is how often we waited because another process had locked the
	// database, BusyTime for how long.
	BusyWaits uint64
	BusyTime  time.Duration
	// Size and LogSize are the bytes of the database and of its write-ahead log.
	Size, LogSize int64
}

// counts are behind Stats.
type counts struct{ commits, changes, waits, waited atomic.Uint64 }

// Stats tells what was done so far.
func (db *DB) Stats() Stats {
	return Stats{
		Commits: db.counts.commits.Load(), Changes: db.counts.changes.Load(),
		BusyWaits: db.counts.waits.Load(), BusyTime: time.Duration(db.counts.waited.Load()),
		Size: fileSize(db.file), LogSize: fileSize(db.file + "-wal"),
	}
}

func (c *counts) committed(changes int) {
	c.commits.Add(1)
	c.changes.Add(uint64(changes))
}

func (c *counts) waitedSince(begun time.Time) {
	c.waits.Add(1)
	c.waited.Add(uint64(max(time.Since(begun), 0)))
}
