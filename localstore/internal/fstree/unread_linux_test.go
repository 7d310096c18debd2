package fstree

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"nixdaemon/protocol/nar"
)

// TestUnread: verifying and deduplicating leave no trace in access times, and reading for somebody does where the file
// system keeps them.
func TestUnread(t *testing.T) {
	o := newOptimiserTest(t)
	data := archive(t, func(w *nar.Writer) {
		w.Directory("")
		w.Directory("d")
		file(w, "f", "contents", false)
		w.EndDirectory()
		w.EndDirectory()
	})
	if _, err := o.Restore("tree", bytes.NewReader(data), nil, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, name := range []string{"tree", "tree/d", "tree/d/f"} {
		paths = append(paths, filepath.Join(o.Path(), name))
	}
	long := time.Unix(1000, 0)
	age := func() {
		for _, p := range paths {
			if err := os.Chtimes(p, long, time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	read := func() (touched int) {
		for _, p := range paths {
			info, err := os.Lstat(p)
			if err != nil {
				t.Fatal(err)
			}
			if info.Sys().(*syscall.Stat_t).Atim.Sec != long.Unix() {
				touched++
			}
		}
		return touched
	}
	for what, work := range map[string]func() error{
		"verifying": func() error { return o.Dump(ctx, "tree", io.Discard, DumpOptions{Unread: true}) },
		"measuring": func() error { _, err := o.Measure(ctx, "tree", DumpOptions{}); return err },
		"deduplicating": func() error {
			return NewOptimiser(o.Dir, o.links, OptimiseOptions{}).Tree(ctx, "tree")
		},
	} {
		age()
		if err := work(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if n := read(); n != 0 {
			t.Errorf("%s touched %d access times", what, n)
		}
	}
	age()
	if err := o.Dump(ctx, "tree", io.Discard, DumpOptions{}); err != nil {
		t.Fatal(err)
	}
	if read() == 0 {
		t.Skip("this file system keeps no access times")
	}
}
