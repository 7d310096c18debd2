//go:build !linux

package gc

import (
	"os"

	"golang.org/x/sys/unix"
)

// Available tells how many bytes whoever is not root can still write to the file system that has path.
func Available(path string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}
