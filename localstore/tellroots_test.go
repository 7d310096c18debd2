package localstore

import (
	"slices"
	"testing"

	"nixdaemon/protocol/storepath"
)

// TestTellRoots: our own collector hears of roots without its socket, which is not even there, after they were written
// down. What it cannot take at once goes over the socket.
func TestTellRoots(t *testing.T) {
	s := open(t, nil)
	roots := s.NewTempRoots()
	defer roots.Close()
	c := startCollector(t, s)
	all := fillRows(t, s, 4)
	a, b, later, last := all[0], all[1], all[2], all[3]
	var told []string
	s.TellRoots(func(hashPart string) bool {
		if all, err := s.TempRootPaths(); err != nil || !slices.Contains(all, a) {
			t.Errorf("told of what is not written down: %v, %v", all, err)
		}
		told = append(told, hashPart)
		return hashPart != later.HashPart()
	})
	if err := roots.Add(ctx, a, b); err != nil {
		t.Fatal(err)
	}
	if want := []string{a.HashPart(), b.HashPart()}; !slices.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
	c.listen(t, s)
	if err := roots.Add(ctx, later); err != nil {
		t.Fatal(err)
	}
	if got := <-c.roots; got != s.Dir().Print(later) {
		t.Errorf("told of %s over the socket", got)
	}
	told = nil
	s.TellRoots(nil)
	if err := roots.Add(ctx, last); err != nil {
		t.Fatal(err)
	}
	if got := <-c.roots; got != s.Dir().Print(last) || len(told) != 0 {
		t.Errorf("in the end told of %s over the socket, and directly of %v", got, told)
	}
}

// TestTellRootsOfAnotherStore: a collector of files whose places others have taken is not enough.
func TestTellRootsOfAnotherStore(t *testing.T) {
	s := open(t, nil)
	s.TellRoots(func(string) bool { return true })
	h := s.current.Load()
	p := mustPath(t, "a")
	if !s.tellOwn(h, []storepath.Path{p}) {
		t.Error("our own collector is not told")
	}
	if s.tellOwn(&handle{epoch: h.epoch + 1}, []storepath.Path{p}) {
		t.Error("the collector of another handle is told")
	}
}
