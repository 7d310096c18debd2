package remote

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore/pathlock"
)

// load is the directory through whose locks everybody on this machine knows how many builds each other machine has
// (build-remote.cc, currentLoad).
type load struct{ dir string }

// lock takes the lock under which a machine is chosen.
func (l load) lock(ctx context.Context) (*os.File, error) {
	if err := os.Mkdir(l.dir, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	f, err := pathlock.OpenLockFile(filepath.Join(l.dir, "main-lock"), true)
	if err != nil {
		return nil, err
	}
	if err := pathlock.Flock(ctx, f, pathlock.Exclusive, nil); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// escape makes a file name of an address.
func escape(uri string) string { return strings.ReplaceAll(uri, "/", "_") }

// find looks for a free slot of a machine, which is then taken by the file that it gives, and counts those that are
// taken already. It gives nil if none is free.
func (l load) find(m *Machine) (free *os.File, taken uint, err error) {
	defer func() {
		if err != nil && free != nil {
			free.Close()
		}
	}()
	for slot := range m.MaxJobs {
		f, err := pathlock.OpenLockFile(filepath.Join(l.dir, escape(m.URI)+"-"+strconv.FormatUint(uint64(slot), 10)), true)
		if err != nil {
			return free, taken, err
		}
		ok, err := pathlock.TryFlock(f, pathlock.Exclusive)
		switch {
		case err != nil:
			f.Close()
			return free, taken, err
		case !ok:
			taken++
			f.Close()
		case free == nil:
			free = f
		default:
			f.Close()
		}
	}
	return free, taken, nil
}

// touch notes when a slot was last used.
func touch(slot *os.File) error {
	now := time.Now()
	if err := os.Chtimes(slot.Name(), now, now); err != nil {
		return fmt.Errorf("note use of slot: %w", err)
	}
	return nil
}

// uploadPatience is how long the end of others' uploads to a machine is waited for.
const uploadPatience = 15 * time.Minute

// upload takes the lock under which is sent to a machine, one at a time. It gives up after uploadPatience: late is true
// then, and the lock is not held. The file is closed to give the lock back.
func (l load) upload(ctx context.Context, m *Machine) (f *os.File, late bool, err error) {
	f, err = pathlock.OpenLockFile(filepath.Join(l.dir, escape(m.URI)+".upload-lock"), true)
	if errors.Is(err, unix.ENAMETOOLONG) {
		sum := md5.Sum([]byte(m.URI))
		name := base64.StdEncoding.EncodeToString(sum[:])
		f, err = pathlock.OpenLockFile(filepath.Join(l.dir, escape(name)+".upload-lock"), true)
	}
	if err != nil {
		return nil, false, err
	}
	patient, cancel := context.WithTimeout(ctx, uploadPatience)
	defer cancel()
	err = pathlock.Flock(patient, f, pathlock.Exclusive, nil)
	if err != nil && ctx.Err() == nil && patient.Err() != nil {
		return f, true, nil
	}
	if err != nil {
		f.Close()
		return nil, false, err
	}
	return f, false, nil
}
