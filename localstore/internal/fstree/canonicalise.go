package fstree

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// CanonicaliseOptions say what is accepted. The zero value accepts files of any owner and keeps no attribute.
type CanonicaliseOptions struct {
	// Owner is the range of user ids that a builder had; files of others are refused, since it may have linked
	// to them. Nil for files that no builder made.
	Owner *OwnerRange
	// Seen holds the files that were canonicalised before, in this tree or in others of the same build: those may
	// have further names although they are the daemon's own by now. Nil starts with none.
	Seen *Inodes
	// IgnoredACLs names extended attributes that are left alone (setting ignored-acls).
	IgnoredACLs []string
}

// OwnerRange is a range of user ids, both ends included.
type OwnerRange struct{ First, Last uint32 }

// OwnershipError tells that a build's output holds somebody else's file.
type OwnershipError struct{ Path string }

func (e *OwnershipError) Error() string {
	return fmt.Sprintf("invalid ownership on file \"%s\"", e.Path)
}

// Inodes is a set of files. The zero value is empty and ready; it is not for concurrent use.
type Inodes struct{ set map[inode]struct{} }

type inode struct{ dev, ino uint64 }

func (s *Inodes) has(i inode) bool { _, ok := s.set[i]; return ok }

func (s *Inodes) add(i inode) {
	if s.set == nil {
		s.set = make(map[inode]struct{})
	}
	s.set[i] = struct{}{}
}

// Canonicalise gives everything in the tree called name its canonical metadata (see the package comment). Types
// other than files, directories and links are refused.
func (d *Dir) Canonicalise(ctx context.Context, name string, o CanonicaliseOptions) error {
	if err := checkName(name); err != nil {
		return err
	}
	if o.Seen == nil {
		o.Seen = new(Inodes)
	}
	c := &canonicaliser{ctx: ctx, opts: o, top: d, uid: unix.Geteuid(), gid: unix.Getegid()}
	return c.node(d.fd, name)
}

type canonicaliser struct {
	ctx      context.Context
	opts     CanonicaliseOptions
	top      *Dir
	uid, gid int
	list     lister
	path     []string
}

func (c *canonicaliser) node(parent int, name string) error {
	if len(c.path) >= maxDepth {
		return fmt.Errorf("path '%s/%s' exceeds maximum NAR directory depth of %d", c.where(), name, maxDepth)
	}
	c.path = append(c.path, name)
	defer func() { c.path = c.path[:len(c.path)-1] }()
	var st unix.Stat_t
	if err := fstatat(parent, name, &st); err != nil {
		return c.wrap("getting status of", err)
	}
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFLNK:
		return c.symlink(parent, name, &st)
	case unix.S_IFREG, unix.S_IFDIR:
		return c.open(parent, name, uint32(st.Mode))
	}
	return fmt.Errorf("file \"%s\" has an unsupported type", c.where())
}

// foreign tells whether the file is to be left alone, as one that was dealt with under another name.
func (c *canonicaliser) foreign(st *unix.Stat_t) (bool, error) {
	id := inode{uint64(st.Dev), st.Ino}
	if c.opts.Owner != nil && (st.Uid < c.opts.Owner.First || st.Uid > c.opts.Owner.Last) {
		if isType(uint32(st.Mode), unix.S_IFDIR) || !c.opts.Seen.has(id) {
			return false, &OwnershipError{c.where()}
		}
		return true, nil
	}
	if !isType(uint32(st.Mode), unix.S_IFDIR) {
		c.opts.Seen.add(id)
	}
	return false, nil
}

func (c *canonicaliser) symlink(parent int, name string, st *unix.Stat_t) error {
	if skip, err := c.foreign(st); skip || err != nil {
		return err
	}
	if err := removeXattrsAt(parent, name, c.opts.IgnoredACLs); err != nil {
		return c.wrap("removing extended attributes from", err)
	}
	if int(st.Uid) != c.uid {
		own := func() error { return unix.Fchownat(parent, name, c.uid, c.gid, unix.AT_SYMLINK_NOFOLLOW) }
		if err := retry(own); err != nil {
			return c.wrap("changing owner of", err)
		}
	}
	if mtimeIsCanonical(st) {
		return nil
	}
	if err := setTimeAt(parent, name); err != nil {
		return c.wrap("changing modification time of", err)
	}
	return nil
}

const openNodeFlags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC

// open works on a file or directory through a descriptor, so that it is one and the same in every step.
func (c *canonicaliser) open(parent int, name string, mode uint32) error {
	fd, err := openat(parent, name, openNodeFlags, 0)
	if err == unix.EACCES {
		// It is our own, or we could not change it: made unreadable by a builder that has no user of its own.
		if err = chmodNoFollow(parent, name, mode&0o7777|readable(mode)); err == nil {
			fd, err = openat(parent, name, openNodeFlags, 0)
		}
	}
	if err != nil {
		return c.wrap("opening", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return c.wrap("getting status of", err)
	}
	if skip, err := c.foreign(&st); skip || err != nil {
		return err
	}
	if err := c.metadata(fd, &st); err != nil || !isType(uint32(st.Mode), unix.S_IFDIR) {
		return err
	}
	return c.contents(fd)
}

// readable are the bits that an owner needs to open a file or to work in a directory.
func readable(mode uint32) uint32 {
	if isType(mode, unix.S_IFDIR) {
		return 0o500
	}
	return 0o400
}

// metadata changes what differs. The owner comes first: that clears set-id bits, and a builder's user can
// change nothing from then on.
func (c *canonicaliser) metadata(fd int, st *unix.Stat_t) error {
	if err := removeXattrs(fd, c.opts.IgnoredACLs); err != nil {
		return c.wrap("removing extended attributes from", err)
	}
	if int(st.Uid) != c.uid {
		if err := retry(func() error { return unix.Fchown(fd, c.uid, c.gid) }); err != nil {
			return c.wrap("changing owner of", err)
		}
	}
	if mode := canonicalMode(uint32(st.Mode)); uint32(st.Mode)&0o7777 != mode {
		if err := retry(func() error { return unix.Fchmod(fd, mode) }); err != nil {
			return c.wrap("changing mode of", err)
		}
	}
	if mtimeIsCanonical(st) {
		return nil
	}
	if err := setTime(fd); err != nil {
		return c.wrap("changing modification time of", err)
	}
	return nil
}

// canonicalMode keeps 0555 whatever the owner's bit says of the rest, as upstream.
func canonicalMode(mode uint32) uint32 {
	if isType(mode, unix.S_IFDIR) || mode&unix.S_IXUSR != 0 {
		return modeExec
	}
	return modeFile
}

func (c *canonicaliser) contents(fd int) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	entries, err := c.list.list(fd)
	if err != nil {
		return c.wrap("reading directory", err)
	}
	for i := range entries {
		if err := c.node(fd, entries[i].name); err != nil {
			return err
		}
	}
	return nil
}

func (c *canonicaliser) where() string { return c.top.path + "/" + strings.Join(c.path, "/") }

func (c *canonicaliser) wrap(verb string, err error) error {
	return fmt.Errorf("%s \"%s\": %w", verb, c.where(), err)
}
