package fstree

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nixhash"
)

// CopyFile writes the contents of the regular file called name.
func (d *Dir) CopyFile(ctx context.Context, name string, w io.Writer) error {
	if err := checkName(name); err != nil {
		return err
	}
	_, _, err := d.copyFile(ctx, d.fd, name, func(unix.Stat_t) io.Writer { return w })
	return err
}

// copyFile asks for the writer once the file's metadata is known.
func (d *Dir) copyFile(ctx context.Context, dir int, name string, to func(unix.Stat_t) io.Writer) (w io.Writer, st unix.Stat_t, err error) {
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, st, d.wrap("opening file", name, err)
	}
	defer unix.Close(fd)
	if err := fstat(fd, &st); err != nil {
		return nil, st, d.wrap("getting status of", name, err)
	}
	if !isType(uint32(st.Mode), unix.S_IFREG) {
		return nil, st, fmt.Errorf("file '%s' is not a regular file", d.join(name))
	}
	w = to(st)
	buf := make([]byte, min(st.Size, bigChunk))
	for left := st.Size; left > 0; {
		if ctx.Err() != nil {
			return nil, st, context.Cause(ctx)
		}
		n, err := io.ReadFull(fdReader{fd}, buf[:min(left, bigChunk)])
		if err != nil {
			return nil, st, d.wrap("reading file", name, err)
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return nil, st, err
		}
		left -= int64(n)
	}
	return w, st, nil
}

// Modes of entries of git's trees.
const (
	gitFile = "100644"
	gitExec = "100755"
	gitLink = "120000"
	gitDir  = "40000"
)

// HashGit hashes the tree called name as git hashes objects: a file as a blob, a directory as a tree of the hashes of
// its entries (libutil/git.cc).
func (d *Dir) HashGit(ctx context.Context, name string, algo nixhash.Algo) (nixhash.Hash, error) {
	if err := checkName(name); err != nil {
		return nixhash.Hash{}, err
	}
	_, hash, err := (&gitHasher{ctx, d, algo, lister{}}).node(d.fd, &entry{name: name}, 0)
	return hash, err
}

type gitHasher struct {
	ctx  context.Context
	top  *Dir
	algo nixhash.Algo
	list lister
}

func (g *gitHasher) node(parent int, e *entry, depth int) (mode string, hash nixhash.Hash, err error) {
	if depth >= maxDepth {
		return "", hash, fmt.Errorf("path '%s' exceeds maximum NAR directory depth of %d", e.name, maxDepth)
	}
	kind, err := e.kindOf(parent)
	if err != nil {
		return "", hash, g.top.wrap("getting status of", e.name, err)
	}
	switch kind {
	case unix.S_IFREG:
		return g.blob(parent, e.name)
	case unix.S_IFLNK:
		target, err := readlinkat(parent, e.name)
		if err != nil {
			return "", hash, g.top.wrap("reading symbolic link", e.name, err)
		}
		return gitLink, g.object("blob", []byte(target)), nil
	case unix.S_IFDIR:
		hash, err = g.tree(parent, e.name, depth)
		return gitDir, hash, err
	}
	return "", hash, fmt.Errorf("file '%s' has an unsupported type", e.name)
}

func (g *gitHasher) object(kind string, content []byte) nixhash.Hash {
	return nixhash.Of(g.algo, kind+" "+strconv.Itoa(len(content))+"\x00"+string(content))
}

func (g *gitHasher) blob(parent int, name string) (string, nixhash.Hash, error) {
	sum := g.algo.New()
	_, st, err := g.top.copyFile(g.ctx, parent, name, func(st unix.Stat_t) io.Writer {
		io.WriteString(sum, "blob "+strconv.FormatInt(st.Size, 10)+"\x00")
		return sum
	})
	mode := gitFile
	if st.Mode&unix.S_IXUSR != 0 {
		mode = gitExec
	}
	return mode, nixhash.FromSum(g.algo, sum), err
}

func (g *gitHasher) tree(parent int, name string, depth int) (nixhash.Hash, error) {
	if g.ctx.Err() != nil {
		return nixhash.Hash{}, context.Cause(g.ctx)
	}
	fd, err := openat(parent, name, openDirFlags, 0)
	if err != nil {
		return nixhash.Hash{}, g.top.wrap("opening directory", name, err)
	}
	defer unix.Close(fd)
	entries, err := g.list.list(fd)
	if err != nil {
		return nixhash.Hash{}, g.top.wrap("reading directory", name, err)
	}
	type child struct{ sortName, text string }
	children := make([]child, len(entries))
	for i := range entries {
		mode, hash, err := g.node(fd, &entries[i], depth+1)
		if err != nil {
			return nixhash.Hash{}, err
		}
		sortName := entries[i].name
		if mode == gitDir {
			sortName += "/"
		}
		children[i] = child{sortName, mode + " " + entries[i].name + "\x00" + string(hash.Digest())}
	}
	slices.SortFunc(children, func(a, b child) int { return cmp.Compare(a.sortName, b.sortName) })
	var content []byte
	for _, c := range children {
		content = append(content, c.text...)
	}
	return g.object("tree", content), nil
}
