package fstree

import (
	"context"
	"fmt"
	"hash"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
)

// fileSum computes, while a file is written, the hash that the file is called by among the links.
type fileSum struct {
	file *fileWriter
	nar  *nar.Writer
	hash hash.Hash
	text []byte // of a small file, see gather
}

// newSum borrows a sum, for its buffer; give it back with [Dir.putSum].
func (d *Dir) newSum() *fileSum {
	if s, ok := d.sums.Get().(*fileSum); ok {
		return s
	}
	return &fileSum{nar: nar.NewWriter(nil), hash: nixhash.SHA256.New()}
}

func (d *Dir) putSum(s *fileSum) {
	s.file = nil
	s.nar.Reset(nil)
	d.sums.Put(s)
}

// begin starts with a file that is about to be written.
func (s *fileSum) begin(file *fileWriter, executable bool, size uint64) error {
	s.file = file
	s.hash.Reset()
	s.nar.Reset(s.hash)
	return s.nar.Create("", executable, size)
}

// Write writes to the file, too.
func (s *fileSum) Write(p []byte) (int, error) {
	if n, err := s.file.Write(p); err != nil {
		return n, err
	}
	return s.nar.Write(p)
}

func (s *fileSum) finish() (nixhash.Hash, error) {
	if err := s.nar.Close(); err != nil {
		return nixhash.Hash{}, err
	}
	return nixhash.FromSum(nixhash.SHA256, s.hash), nil
}

func (s *fileSum) symlink(target string) (nixhash.Hash, error) {
	s.hash.Reset()
	s.nar.Reset(s.hash)
	if err := s.nar.Symlink("", target); err != nil {
		return nixhash.Hash{}, err
	}
	return s.finish()
}

// hashes tells whether the next node's own hash is wanted. Of a root that is no directory it is the archive's, which others
// compute.
func (re *restorer) hashes() bool { return re.opts.Link != nil && len(re.open) > 0 }

// link gives what was just made the inode of what equals it. Its directory is still as it was made.
func (re *restorer) link(name string, hash nixhash.Hash) error {
	dir := re.open[len(re.open)-1]
	t := re.linking(dir, name)
	if excludedFromLinking(t.where) {
		return nil
	}
	return t.joinNew(dir.fd, name, hash.Nix32(), hash)
}

// joinNew is join for what was just made in a directory that is still as it was made. It mostly has no equal: then the
// link alone is needed.
func (t *optimising) joinNew(parent int, name, link string, hash nixhash.Hash) error {
	if !t.opts.Sync && !t.opts.Repair && retry(func() error { return unix.Linkat(parent, name, t.links.fd, link, 0) }) == nil {
		return nil
	}
	var st unix.Stat_t
	if err := fstatat(parent, name, &st); err != nil {
		return t.wrap("getting status of", err)
	}
	_, err := t.join(parent, name, &st, hash, false)
	return err
}

// linking is what links the entry called name in a directory that is being made.
func (re *restorer) linking(dir *openDir, name string) *optimising {
	t := &re.small.linking
	t.Optimiser, t.ctx, t.path = re.opts.Link, context.Background(), t.path[:0]
	t.path = dir.appendPath(t.path)
	t.path = append(t.path, name)
	return t
}

// appendPath appends the names on the way to the directory, from the root on.
func (d *openDir) appendPath(path []string) []string {
	if d == nil {
		return path
	}
	return append(d.parent.appendPath(path), d.name)
}

// Root links the entry called name, if it is a file or a symbolic link, by the hash that its archive is known to have.
func (o *Optimiser) Root(ctx context.Context, name string, hash nixhash.Hash) error {
	if err := checkName(name); err != nil {
		return err
	}
	t := &optimising{Optimiser: o, ctx: ctx, path: []string{name}}
	var st unix.Stat_t
	if err := fstatat(o.store.fd, name, &st); err != nil {
		return t.wrap("getting status of", err)
	}
	switch {
	case excludedFromLinking(t.where):
		return nil
	case isType(uint32(st.Mode), unix.S_IFREG) && st.Mode&unix.S_IWUSR != 0:
		t.opts.Warn(fmt.Sprintf("skipping suspicious writable file '\"%s\"'", t.where()))
		return nil
	case isType(uint32(st.Mode), unix.S_IFREG), isType(uint32(st.Mode), unix.S_IFLNK) && canLinkSymlinks:
		_, err := t.join(o.store.fd, name, &st, hash, true)
		return err
	}
	return nil
}
