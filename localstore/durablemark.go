package localstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"nixdaemon/localstore/internal/fstree"
)

// durableName is the file in the state directory that says up to which row the store is known to be durable. Upstream
// does not know it, and does no harm to it.
const durableName = "nixdaemon-durable"

// durableMark says: everything that the database's rows up to number ID stand for had reached the disk at some time
// during the boot named. The other fields tell the database from others that may come to stand in its place: it is the
// one if the file has that inode, or if it has that path in that row. Neither is enough by itself: some file systems
// number their inodes anew, and rows are removed.
type durableMark struct {
	Boot  string // empty if unknown, which is no boot
	ID    int64
	Path  string // of row ID; empty if that is gone
	Inode uint64
	Born  int64 // when the inode was made, in nanoseconds since 1970; 0 if unknown
}

const (
	durableHeader = "nixdaemon durable 1"
	maxDurable    = 8 << 10 // more than any mark has
)

var errNoMark = errors.New("not a durable mark")

// String is the file's text: a header, then one line for each field.
func (m *durableMark) String() string {
	return fmt.Sprintf("%s\nboot %s\nid %d\npath %s\ninode %d\nborn %d\n", durableHeader, m.Boot, m.ID, m.Path, m.Inode, m.Born)
}

// parseDurableMark accepts what String makes, and nothing else.
func parseDurableMark(text string) (durableMark, error) {
	lines := strings.Split(text, "\n")
	if len(text) > maxDurable || len(lines) != 7 || lines[0] != durableHeader {
		return durableMark{}, errNoMark
	}
	var m durableMark
	value := func(i int, name string) string { return strings.TrimPrefix(lines[i], name+" ") }
	m.Boot, m.Path = value(1, "boot"), value(3, "path")
	var errs [3]error
	m.ID, errs[0] = strconv.ParseInt(value(2, "id"), 10, 64)
	m.Inode, errs[1] = strconv.ParseUint(value(4, "inode"), 10, 64)
	m.Born, errs[2] = strconv.ParseInt(value(5, "born"), 10, 64)
	if errors.Join(errs[:]...) != nil || m.ID < 0 || m.String() != text {
		return durableMark{}, errNoMark
	}
	return m, nil
}

// readMark gives an error that is fs.ErrNotExist if there is no mark.
func (o *Options) readMark() (durableMark, error) {
	f, err := os.Open(o.durableFile())
	if err != nil {
		return durableMark{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxDurable+1))
	if err != nil {
		return durableMark{}, err
	}
	return parseDurableMark(string(text))
}

func (o *Options) durableFile() string { return filepath.Join(o.StateDir, durableName) }

// writeMark replaces the mark; with sync set it is durable afterwards. (On macOS syncing a file makes the drive empty its
// cache, which is what finishes the file system's sync before it: there sync(2) alone only hands over to the drive.)
func (o *Options) writeMark(m durableMark, sync bool) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write durable mark: %w", err)
		}
	}()
	f, err := os.CreateTemp(o.StateDir, durableName+".tmp-")
	if err != nil {
		return err
	}
	_, err = f.WriteString(m.String())
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), o.durableFile())
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if !sync {
		return nil
	}
	dir, err := fstree.OpenRoot(o.StateDir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// markOf is the mark for what the database has up to row id.
func (s *Store) markOf(ctx context.Context, h *handle, boot string, id int64) (durableMark, error) {
	path, err := h.db.PathOf(ctx, id)
	m := durableMark{Boot: boot, ID: id, Path: path}
	m.Inode, m.Born = h.db.Inode()
	return m, err
}

// fits tells whether a mark is about this database, whose largest row number was ever last.
func (m *durableMark) fits(ctx context.Context, h *handle, last int64) (bool, error) {
	if last < m.ID {
		return false, nil
	}
	if inode, born := h.db.Inode(); inode == m.Inode && born == m.Born {
		return true, nil
	}
	if m.Path == "" {
		return false, nil
	}
	path, err := h.db.PathOf(ctx, m.ID)
	return path == m.Path, err
}
