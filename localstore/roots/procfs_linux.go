package roots

import "golang.org/x/sys/unix"

// isOfProc tells whether the link that reads text is one of a process file system, whatever way its name leads there.
// What cannot be looked at any more counts as such: it is another link by now.
func isOfProc(name, text string) bool {
	fd, err := openat(unix.AT_FDCWD, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &st) }); err != nil || st.Type == unix.PROC_SUPER_MAGIC {
		return true
	}
	again, err := readlinkat(fd, "")
	return err != nil || again != text
}
