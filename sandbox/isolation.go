package sandbox

import (
	"errors"
	"os"
)

// ErrGroups is returned by [Launcher.Start] when supplementary groups could not be dropped although
// [Isolation.DropGroups] wants them to be.
var ErrGroups = errors.New("supplementary groups cannot be dropped")

// Isolation is the world of an isolated builder: namespaces of its own and a root that is built from nothing and holds
// only what Entries list. The builder is process 1 of its own process namespace, so all that it starts ends with it.
// Linux only: elsewhere [Launcher.Start] refuses it with [errors.ErrUnsupported].
//
// Within it [Spec.Path], [Spec.Dir] and the environment speak of the builder's root.
type Isolation struct {
	// Root is an existing directory of the host, this build's alone and out of others' reach. The builder's root is a file
	// system in memory, mounted over it where only the builder sees it: the host finds the directory as it was.
	Root string
	// Entries make up the root, in this order: one may lie below an earlier one, also below one that is mounted.
	// Directories above a target are made as needed, with mode 0755.
	Entries []Entry
	// IDs are how the builder's user appears inside. Nil leaves ids as they are outside, without a user namespace, for
	// a daemon that runs as root on a machine without such namespaces.
	IDs *IDMap
	// ShareNetwork leaves the builder in the daemon's network, for builds whose result does not depend on it.
	ShareNetwork bool
	// DropGroups makes it an error that supplementary groups cannot be dropped
	// (upstream's require-drop-supplementary-groups).
	DropGroups bool
}

// IDMap maps Count user and group ids from UID and GID inside to the builder's own and those after it outside. Count is 1
// for an ordinary build. More makes the builder the owner of its namespaces, with privileges over them alone
// (upstream's uid-range).
type IDMap struct {
	UID, GID uint32
	Count    uint32
}

// EntryKind says what an [Entry] is.
type EntryKind uint8

const (
	// EntryDir is a directory. Its owner is the builder if Own is set.
	EntryDir EntryKind = iota + 1
	// EntryFile is a regular file with Text as contents.
	EntryFile
	// EntryLink is a symbolic link to Text.
	EntryLink
	// EntryBind shows Source, a path of the host, with all that is mounted below it. What is mounted on is made to fit. A
	// Source that is a symbolic link is not followed: the link itself appears.
	EntryBind
	// EntryProc is a procfs of the builder's process namespace.
	EntryProc
	// EntrySys is a sysfs of the builder's network namespace.
	EntrySys
	// EntryTmpfs is a file system in memory, whose size is Text ("50%", "64m").
	EntryTmpfs
	// EntryPts is a devpts of the builder's own.
	EntryPts
)

// Entry is one thing in the root of an isolated builder.
type Entry struct {
	Kind EntryKind
	// Target is an absolute, clean path in the builder's root.
	Target string
	// Source is an absolute path of the host, for EntryBind.
	Source string
	// Text is a file's contents, a link's target or a file system's size.
	Text string
	// Mode is for EntryDir, EntryFile and EntryTmpfs.
	Mode os.FileMode
	// Own gives an EntryDir or EntryFile to the builder.
	Own bool
	// ReadOnly is for EntryBind.
	ReadOnly bool
	// Fresh says of an EntryBind that Source holds nothing but what entries put there: it was made for this build, and
	// nobody else can reach it. Elsewhere the way to an entry below a bound directory must not lead through a symbolic
	// link, and costs more.
	Fresh bool
	// Optional drops an EntryBind whose Source does not exist.
	Optional bool
	// Assembly is for an EntryBind that is Fresh: what was assembled on Source appears with it. It must stay open until
	// [Launcher.Start] has returned.
	Assembly *Assembly
}

// Support tells what the machine offers for isolation.
type Support struct {
	// Namespaces is why a builder cannot be given namespaces of its own, with a procfs for its processes; nil if it can.
	Namespaces error
	// UserNamespaces is why there are no user namespaces; nil if there are.
	UserNamespaces error
}
