package cachestore

import (
	"hash"
	"io"
	"regexp"
	"strings"
	"sync"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/narinfo"
)

// inspector looks at what an archive holds while it goes by, as far as anybody wants to know.
type inspector struct {
	listing *narinfo.Listing // nil for none
	debug   bool
	flat    hash.Hash // of the contents if the archive is one file; nil if nobody asks

	open    []string // the directories that it is in
	members []string // files of debug information
	isFile  bool     // whether the archive is one file
}

var _ nar.Handler = (*inspector)(nil)

// debugDir is where packages have files of debug information by build id, and debugMember what they are called there.
const debugDir = "lib/debug/.build-id/"

var debugMember = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^` + regexp.QuoteMeta(debugDir) + `([0-9a-f]{2})/([0-9a-f]{38}\.debug)$`)
})

// Directory follows into a directory.
func (i *inspector) Directory(name string) error {
	if i.debug {
		i.open = append(i.open, name)
	}
	if i.listing == nil {
		return nil
	}
	return i.listing.Directory(name)
}

// EndDirectory leaves it.
func (i *inspector) EndDirectory() error {
	if i.debug {
		i.open = i.open[:len(i.open)-1]
	}
	if i.listing == nil {
		return nil
	}
	return i.listing.EndDirectory()
}

// Regular notes a file.
func (i *inspector) Regular(name string, executable bool, size uint64, contents io.Reader) error {
	i.isFile = name == ""
	const depth = 5 // the root, and the four directories of debugMember
	if i.debug && len(i.open) == depth {
		if member := strings.Join(append(i.open[1:depth:depth], name), "/"); debugMember().MatchString(member) {
			i.members = append(i.members, member)
		}
	}
	if i.flat != nil && i.isFile {
		if _, err := io.Copy(i.flat, contents); err != nil {
			return err
		}
	}
	if i.listing == nil {
		return nil
	}
	return i.listing.Regular(name, executable, size, contents)
}

// Symlink notes a symbolic link.
func (i *inspector) Symlink(name, target string) error {
	if i.listing == nil {
		return nil
	}
	return i.listing.Symlink(name, target)
}

// debugKey is the object that leads to a file of debug information.
func debugKey(member string) string {
	at := debugMember().FindStringSubmatch(member)
	return "debuginfo/" + at[1] + at[2]
}
