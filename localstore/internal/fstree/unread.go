package fstree

import "golang.org/x/sys/unix"

// openUnread opens an entry so that reading it leaves its access time alone, where the system and the owner allow that:
// to look after a store is not to use it, and each new time would have to be written.
func openUnread(parent int, name string, flags int) (int, error) {
	fd, err := openat(parent, name, flags|noAccessTime, 0)
	if err == unix.EPERM && noAccessTime != 0 {
		return openat(parent, name, flags, 0)
	}
	return fd, err
}
