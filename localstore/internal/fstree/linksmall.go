package fstree

import (
	"context"
	"io"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nixhash"
)

// smallFile is the largest file, in bytes, whose contents are gathered before it is made, to see whether there is one like
// it. Of a larger one making it costs little beside writing it.
const smallFile = 64 << 10

// gather hashes a file, and keeps its contents in text.
func (s *fileSum) gather(executable bool, size uint64, contents io.Reader) (nixhash.Hash, error) {
	if err := s.begin(nil, executable, size); err != nil {
		return nixhash.Hash{}, err
	}
	s.text = s.text[:0]
	if _, err := contents.(io.WriterTo).WriteTo((*gathering)(s)); err != nil {
		return nixhash.Hash{}, err
	}
	if _, err := s.nar.Write(s.text); err != nil {
		return nixhash.Hash{}, err
	}
	return s.finish()
}

// gathering is the text of a sum, as what is written to.
type gathering fileSum

func (g *gathering) Write(p []byte) (int, error) {
	g.text = append(g.text, p...)
	return len(p), nil
}

// small makes a file, or gives what equals it a further name.
func (re *restorer) small(name string, executable bool, size uint64, contents io.Reader) error {
	parent, name, err := re.parent(name)
	if err != nil {
		return err
	}
	sum := re.top.newSum()
	defer re.top.putSum(sum)
	hash, err := sum.gather(executable, size, contents)
	if err != nil {
		return re.wrap("writing file", name, err)
	}
	t := re.linking(name)
	excluded := excludedFromLinking(t.where)
	if !excluded && t.take(parent, name, hash.Nix32(), executable, size) {
		return nil
	}
	fd, err := re.createAt(parent, name, executable)
	if err != nil {
		return err
	}
	re.file = fileWriter{fd: fd}
	_, err = re.file.Write(sum.text)
	if err == nil {
		err = re.finish(fd, executable)
	}
	var st unix.Stat_t
	if err == nil {
		err = fstat(fd, &st)
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	if err != nil {
		return re.wrap("writing file", name, err)
	}
	if excluded {
		return nil
	}
	_, err = t.join(parent, name, &st, hash, false)
	return err
}

// linking is what links the entry called name in the directory that is being made.
func (re *restorer) linking(name string) *optimising {
	path := make([]string, 1, len(re.open)+1)
	path[0] = re.root
	for _, dir := range re.open[1:] {
		path = append(path, dir.name)
	}
	return &optimising{Optimiser: re.opts.Link, ctx: context.Background(), path: append(path, name)}
}

// take gives a link a name in a directory, if there is that link and it looks like what it is called. Whatever stands in
// the way is left to making the file and joining it.
func (t *optimising) take(parent int, name, link string, executable bool, size uint64) bool {
	if t.opts.Repair || t.opts.Sync {
		return false
	}
	if retry(func() error { return unix.Linkat(t.links.fd, link, parent, name, 0) }) != nil {
		return false
	}
	mode := uint32(modeFile)
	if executable {
		mode = modeExec
	}
	var st unix.Stat_t
	if fstatat(parent, name, &st) == nil && uint32(st.Mode) == unix.S_IFREG|mode && uint64(st.Size) == size && mtimeIsCanonical(&st) {
		t.linked(link, &st)
		return true
	}
	// If it cannot be removed, making the file says so.
	_ = unlink(parent, name, 0)
	return false
}
