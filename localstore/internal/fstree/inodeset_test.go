package fstree

import "testing"

func TestInodeSet(t *testing.T) {
	var s inodeSet
	s.load([]uint64{30, 10, 20})
	check := func(ino uint64, has, durable bool) {
		t.Helper()
		if s.has(ino) != has || s.isDurable(ino) != durable {
			t.Errorf("%d is in the set: %t, durable: %t", ino, s.has(ino), s.isDurable(ino))
		}
	}
	check(10, true, false)
	check(15, false, false)
	s.add(10, false)
	check(10, true, false)
	s.add(10, true)
	check(10, true, true)
	check(20, true, false)
	s.add(15, false)
	check(15, true, false)
	s.add(15, true)
	s.add(15, false)
	check(15, true, true)
	s.loadedDurable = true
	check(20, true, true)
	check(25, false, false)
	if s.add(30, true); len(s.later) != 2 {
		t.Errorf("%d members beside those loaded, want 2", len(s.later))
	}
}
