package localstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/activity"
)

// linksName is the directory within the store that holds one name of every optimised file.
const linksName = ".links"

const (
	storeMode   = 0o1775
	perUserMode = 0o755
)

// createDirs makes all directories that a store needs and that are missing.
func (o *Options) createDirs() error {
	if err := mkdirAll(o.RealDir); err != nil {
		return err
	}
	if !o.ReadOnly {
		if err := o.makeWritable(); err != nil {
			return err
		}
	}
	profiles := filepath.Join(o.StateDir, "profiles")
	for _, dir := range []string{
		o.linksDir(), profiles, o.tempRootsDir(), o.dbDir(), o.rootsDir(),
		filepath.Join(profiles, "per-user"), filepath.Join(o.rootsDir(), "per-user"),
	} {
		if err := mkdirAll(dir); err != nil {
			return err
		}
	}
	if o.ReadOnly {
		return o.checkSymlinks()
	}
	// A collector must be able to listen when nothing more can be made.
	if err := mkdirAll(filepath.Dir(filepath.Join(o.StateDir, gcSocketName))); err != nil {
		return err
	}
	for _, parent := range []string{profiles, o.rootsDir()} {
		if err := chmodIfNeeded(filepath.Join(parent, "per-user"), perUserMode); err != nil {
			return err
		}
	}
	if err := o.ownStore(); err != nil {
		return err
	}
	return o.checkSymlinks()
}

// shortLocksDir is empty for a store that is not written to.
func (o *Options) shortLocksDir() string {
	if o.ReadOnly {
		return ""
	}
	return filepath.Join(o.StateDir, shortLocksName)
}

func mkdirAll(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("creating directory \"%s\": %w", dir, errors.Unwrap(err))
	}
	return nil
}

// chmodIfNeeded spares those who may not change the mode the error, if it is right already.
func chmodIfNeeded(dir string, mode fs.FileMode) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if st.Mode().Perm() == mode {
		return nil
	}
	return os.Chmod(dir, mode)
}

// ownStore gives the store directory to root and the build users' group, if we may and there is one.
func (o *Options) ownStore() error {
	if os.Geteuid() != 0 || o.BuildUsersGroup == "" {
		return nil
	}
	group, err := user.LookupGroup(o.BuildUsersGroup)
	if err != nil {
		o.Log(activity.Error, fmt.Sprintf("warning: the group '%s' specified in 'build-users-group' does not exist", o.BuildUsersGroup))
		return nil
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return fmt.Errorf("read id of group '%s': %w", o.BuildUsersGroup, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(o.RealDir, &st); err != nil {
		return fmt.Errorf("getting status of \"%s\": %w", o.RealDir, err)
	}
	if st.Uid == 0 && st.Gid == uint32(gid) && uint32(st.Mode)&0o7777 == storeMode {
		return nil
	}
	if err := os.Chown(o.RealDir, 0, gid); err != nil {
		return fmt.Errorf("changing ownership of path \"%s\": %w", o.RealDir, err)
	}
	return unix.Chmod(o.RealDir, storeMode)
}

func (o *Options) checkSymlinks() error {
	if o.AllowSymlinked {
		return nil
	}
	for path := o.RealDir; path != "/"; path = filepath.Dir(path) {
		st, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if st.Mode()&fs.ModeSymlink != 0 {
			return fmt.Errorf("the path \"%s\" is a symlink; this is not allowed for the Nix store and its parent directories", path)
		}
	}
	return nil
}
