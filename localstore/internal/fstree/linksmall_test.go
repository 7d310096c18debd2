package fstree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nixdaemon/protocol/nar"
)

// manySmall is a tree of several batches of files, in many directories, of which some equal one another.
func manySmall(t *testing.T) []byte {
	return archive(t, func(w *nar.Writer) {
		w.Directory("")
		for i := range 40 {
			w.Directory(fmt.Sprintf("d%02d", i))
			for j := range 1 + i%7*11 {
				n := i*100 + j
				if j%5 == 4 {
					n -= 1 + j%3*40
				}
				file(w, fmt.Sprintf("f%02d", j), strings.Repeat(fmt.Sprintf("%06d", n), 50), false)
				if j%13 == 12 {
					w.Directory(fmt.Sprintf("f%02d-d", j))
					file(w, "in", strings.Repeat(fmt.Sprintf("in%06d", n), 4000), true)
					w.EndDirectory()
				}
			}
			w.EndDirectory()
		}
		file(w, "large", strings.Repeat("x", 2*smallFile), false)
		w.EndDirectory()
	})
}

// TestLinkManySmall: files made in batches are linked as those of a finished tree are, and their directories are as if
// nothing had been done in them.
func TestLinkManySmall(t *testing.T) { testLinkWhileRestoring(t, manySmall(t)) }

// TestLinkSmallFails: whatever goes wrong while batches are being made, it is told, and nothing is left behind.
func TestLinkSmallFails(t *testing.T) {
	data := manySmall(t)
	half := int64(len(data) / 2)
	for _, c := range []struct {
		what string
		rest func(*optimiserTest) io.Reader
		want error
	}{
		{"the archive breaks off", func(*optimiserTest) io.Reader { return strings.NewReader("") }, io.ErrUnexpectedEOF},
		{"the archive is bad", func(*optimiserTest) io.Reader { return bytes.NewReader(make([]byte, 8<<20)) }, nil},
		{"somebody removes the tree", func(o *optimiserTest) io.Reader {
			return io.MultiReader(readerFunc(func() error { return removeAll(filepath.Join(o.Path(), "tree")) }), bytes.NewReader(data[half:]))
		}, fs.ErrNotExist},
	} {
		t.Run(c.what, func(t *testing.T) {
			o := newOptimiserTest(t)
			before := descriptors(t)
			r := io.MultiReader(bytes.NewReader(data[:half]), c.rest(o))
			_, err := o.Restore("tree", r, nil, RestoreOptions{Link: NewOptimiser(o.Dir, o.links, OptimiseOptions{})})
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("the error is %v, want %v", err, c.want)
			}
			if _, err := os.Lstat(filepath.Join(o.Path(), "tree")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the tree is still there: %v", err)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors are open, and %d were before", after, before)
			}
			// What was linked meanwhile does no harm.
			if o.restoreLinked(t, "tree", data); t.Failed() {
				return
			}
			var out bytes.Buffer
			if err := o.Dump(ctx, "tree", &out, DumpOptions{}); err != nil || !bytes.Equal(out.Bytes(), data) {
				t.Errorf("the tree is not what it was: %v", err)
			}
		})
	}
}

// readerFunc is the end of a stream where something is done.
type readerFunc func() error

func (f readerFunc) Read([]byte) (int, error) {
	if err := f(); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

// removeAll removes a tree in which the last files of a batch may still be made.
func removeAll(root string) (err error) {
	for range 1000 {
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				return os.Chmod(path, 0o755)
			}
			return nil
		})
		if err = os.RemoveAll(root); err == nil {
			return nil
		}
	}
	return err
}

// descriptors counts the open ones, where that can be asked.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
