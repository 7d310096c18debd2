package fstree

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// linkSync sees to it that no file which had reached the disk is replaced by one that has not. Who replaces files of trees
// that nobody is going to look at after a power cut needs it.
type linkSync struct {
	synced time.Time // when the file system was synced last: files unchanged since then are on disk; zero for never
}

// By how much the times that file systems note are behind the clock at most: those that note whole seconds, and those that
// note the time of the kernel's last tick.
const (
	secondsSlack = time.Second
	ticksSlack   = 20 * time.Millisecond
)

// begin syncs the file system, and so what links have been so far.
func (l *linkSync) begin(store *Dir) error {
	start := time.Now()
	if err := store.SyncFS(); err != nil {
		return err
	}
	l.synced = start
	return nil
}

// unchanged tells whether a file was left alone since the file system was synced.
func (l *linkSync) unchanged(st *unix.Stat_t) bool {
	slack := secondsSlack
	if st.Ctim.Nsec != 0 {
		slack = ticksSlack
	}
	return time.Unix(st.Ctim.Unix()).Before(l.synced.Add(-slack))
}

// syncLink makes a link's contents durable, if that is wanted and not yet known.
func (o *Optimiser) syncLink(link string, st *unix.Stat_t) error {
	if !o.opts.Sync || !isType(uint32(st.Mode), unix.S_IFREG) || o.inodes.isDurable(st.Ino) {
		return nil
	}
	if !o.sync.unchanged(st) {
		if err := o.links.syncFile(link); err != nil {
			return err
		}
	}
	o.inodes.add(st.Ino, true)
	return nil
}

// syncFile makes a regular file's contents durable.
func (d *Dir) syncFile(name string) error {
	fd, err := openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return d.wrap("opening file", name, err)
	}
	defer unix.Close(fd)
	if err := retry(func() error { return fsync(fd) }); err != nil {
		return fmt.Errorf("synchronising file \"%s\": %w", d.join(name), err)
	}
	return nil
}
