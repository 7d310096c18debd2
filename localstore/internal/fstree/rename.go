package fstree

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

func renameChecked(fromDir int, from string, toDir int, to string) error {
	var st unix.Stat_t
	if err := fstatat(toDir, to, &st); err == nil {
		return unix.EEXIST
	} else if err != unix.ENOENT {
		return err
	}
	return retry(func() error { return unix.Renameat(fromDir, from, toDir, to) })
}

// Exchange swaps the trees called name here and toName there, both of which exist. Where the system cannot do that
// in one step, for a moment there is nothing called toName.
func (d *Dir) Exchange(name string, to *Dir, toName string) error {
	if err := errors.Join(checkName(name), checkName(toName)); err != nil {
		return err
	}
	err := exchange(d.fd, name, to.fd, toName)
	if err == unix.EACCES {
		err = d.exchangeReadOnly(name, to, toName)
	}
	if err == nil {
		return nil
	}
	if err != unix.EINVAL && err != unix.ENOSYS {
		return fmt.Errorf("exchanging \"%s\" and \"%s\": %w", d.join(name), to.join(toName), err)
	}
	aside := name + ".old"
	if err := to.Move(toName, d, aside); err != nil {
		return err
	}
	if err := d.Move(name, to, toName); err != nil {
		return errors.Join(err, d.Move(aside, to, toName))
	}
	return d.Move(aside, d, name)
}

// exchangeReadOnly swaps directories that their owner may not write; see moveReadOnly.
func (d *Dir) exchangeReadOnly(name string, to *Dir, toName string) error {
	undoA, errA := d.openForMove(name)
	defer undoA()
	undoB, errB := to.openForMove(toName)
	defer undoB()
	if errA != nil && errB != nil {
		return unix.EACCES
	}
	return exchange(d.fd, name, to.fd, toName)
}

// openForMove makes a directory writable until it is undone.
func (d *Dir) openForMove(name string) (undo func(), err error) {
	fd, err := openat(d.fd, name, openDirFlags, 0)
	if err != nil {
		return func() {}, err
	}
	var st unix.Stat_t
	if err = fstat(fd, &st); err == nil {
		err = retry(func() error { return unix.Fchmod(fd, uint32(st.Mode)&0o7777|0o700) })
	}
	return func() {
		unix.Fchmod(fd, uint32(st.Mode)&0o7777)
		unix.Close(fd)
	}, err
}
