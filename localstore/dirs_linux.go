package localstore

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountFlags pairs what statfs tells of a mount with what mount takes: remounting drops whatever is not repeated.
var mountFlags = [...]struct{ stat, mount uintptr }{
	{unix.ST_NODEV, unix.MS_NODEV},
	{unix.ST_NOSUID, unix.MS_NOSUID},
	{unix.ST_NOEXEC, unix.MS_NOEXEC},
	{unix.ST_NOATIME, unix.MS_NOATIME},
	{unix.ST_NODIRATIME, unix.MS_NODIRATIME},
	{unix.ST_RELATIME, unix.MS_RELATIME},
	{unix.ST_SYNCHRONOUS, unix.MS_SYNCHRONOUS},
	{statNoSymFollow, unix.MS_NOSYMFOLLOW},
}

// statNoSymFollow is ST_NOSYMFOLLOW of linux/statfs.h.
const statNoSymFollow = 0x2000

// makeWritable remounts a store that is a read-only bind mount, in our own mount namespace alone.
func (o *Options) makeWritable() error {
	if os.Geteuid() != 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(o.RealDir, &st); err != nil {
		return fmt.Errorf("getting info about the Nix store mount point: %w", err)
	}
	if st.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	if !o.PrivateMounts {
		return fmt.Errorf("cannot remount \"%s\" writable: not in a private mount namespace", o.RealDir)
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND)
	for _, f := range mountFlags {
		if uintptr(st.Flags)&f.stat != 0 {
			flags |= f.mount
		}
	}
	if err := unix.Mount("", o.RealDir, "none", flags, ""); err != nil {
		return fmt.Errorf("remounting \"%s\" writable: %w", o.RealDir, err)
	}
	return nil
}
