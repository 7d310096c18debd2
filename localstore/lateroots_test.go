package localstore

import (
	"testing"
	"time"
)

func TestHoldRoot(t *testing.T) {
	s := open(t, nil)
	for _, p := range []string{"a", "b", "a"} {
		if err := s.HoldRoot(mustPath(t, p)); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := s.TempRootPaths(); len(all) != 2 || err != nil {
		t.Errorf("roots: %v, %v", all, err)
	}
	s.late.expire() // by a timer that was too late to be set anew
	if all, err := s.TempRootPaths(); len(all) != 2 || err != nil {
		t.Errorf("roots before their time is up: %v, %v", all, err)
	}
	s.late.until = time.Now()
	s.late.expire()
	if all, err := s.TempRootPaths(); len(all) != 0 || err != nil {
		t.Errorf("roots in the end: %v, %v", all, err)
	}
	if err := s.HoldRoot(mustPath(t, "c")); err != nil {
		t.Fatal(err)
	}
	if err := s.late.close(); err != nil {
		t.Fatal(err)
	}
	if err := s.HoldRoot(mustPath(t, "d")); err != nil {
		t.Fatal(err)
	}
	if files := tempRootFiles(t, s); len(files) != 0 {
		t.Errorf("left %v", files)
	}
}
