package db

import (
	"os"
	"testing"
)

func TestStats(t *testing.T) {
	opts := testOptions(t)
	db := openTest(t, opts)
	foreign := openForeign(t, opts.Dir)
	before := db.Stats()
	for i := range 3 {
		register(t, db, PathRow{Path: storePath(i, "x"), Hash: testHash})
	}
	s := db.Stats()
	if s.Commits-before.Commits != 3 || s.Changes-before.Changes != 3 {
		t.Errorf("before %+v, after %+v", before, s)
	}
	if st, err := os.Stat(db.file); err != nil || s.Size != st.Size() || s.LogSize <= 0 {
		t.Errorf("sizes %+v, %v", s, err)
	}
	must(t, foreign.exec(stmtBegin, nil))
	done := make(chan error)
	go func() { done <- db.Write(t.Context(), func(*Tx) error { return nil }) }()
	for db.Stats().BusyWaits == before.BusyWaits {
		<-tick()
	}
	must(t, foreign.exec(stmtCommit, nil))
	must(t, <-done)
	if s := db.Stats(); s.BusyTime <= before.BusyTime || s.Commits-before.Commits != 3 {
		t.Errorf("after a wait %+v", s)
	}
}
