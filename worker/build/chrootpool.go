package build

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore"
	"nixdaemon/protocol/storepath"
)

// chrootPool keeps the directories of isolated builders for the next ones. To make files and directories for hundreds
// of inputs to be mounted on, and to delete them, takes a disk file system ten times as long as to mount the inputs;
// and the next builder mostly needs nearly the same. Idle ones are where no collector and no builder can reach them, and
// gone soon after the last build.
//
// A descriptor of such a directory that a builder has passed on would be a way into the next builder's store. So only
// those are kept whose builder could meet nobody: it had no network, where abstract sockets are, and saw nothing of the
// host in which there could be a socket.
type chrootPool struct {
	store *localstore.Store
	most  int // idle ones
	// patience is how long they are kept.
	patience time.Duration

	expiring sync.WaitGroup

	mu     sync.Mutex
	closed bool
	place  *localstore.Staging // of the idle ones; nil if there are none
	idle   []*chroot
	made   int // numbers names in place
	timer  *time.Timer
	// assembled are all there are, of idle chroots and of others; watch is there as long as they are.
	assembled map[*assembled]struct{}
	watch     *dirWatch // of the store directory
	inner     *dirWatch // of the store directories that builders see
	unable    bool      // the machine cannot assemble inputs
	// latest are the inputs of the last builder for which there was no directory.
	latest []storepath.Path
}

// mostIdleChroots is how many are kept at most.
const mostIdleChroots = 16

// idleTime is how long directories are kept that nobody uses.
const idleTime = 3 * time.Second

// take moves the best one to dir. It is nil if there is none that fits.
func (p *chrootPool) take(dir string, gid int, inputs []storepath.Path) *chroot {
	p.mu.Lock()
	defer p.mu.Unlock()
	best, least := -1, 0
	for i, c := range slices.Backward(p.idle) {
		if c.gid != gid {
			continue
		}
		if work := difference(c.points, itself, inputs); best < 0 || work < least {
			best, least = i, work
		}
	}
	if best < 0 {
		return nil
	}
	c := p.idle[best]
	if err := unix.Rename(c.dir, dir); err != nil {
		return nil
	}
	p.idle = slices.Delete(p.idle, best, best+1)
	c.moved(dir)
	c.reused = true
	return c
}

// difference counts what is in one of two sorted sets alone. name gives the names in the first.
func difference[T any](first []T, name func(T) string, inputs []storepath.Path) int {
	n, i := 0, 0
	for _, item := range first {
		name := name(item)
		for i < len(inputs) && inputs[i].Base() < name {
			n, i = n+1, i+1
		}
		if i < len(inputs) && inputs[i].Base() == name {
			i++
		} else {
			n++
		}
	}
	return n + len(inputs) - i
}

func itself(name string) string { return name }

// give takes a directory over, unless it is not wanted.
func (p *chrootPool) give(c *chroot) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= p.most {
		return false
	}
	if p.place == nil {
		place, err := p.store.StagingDir(context.Background())
		if err != nil {
			return false
		}
		p.place = place
	}
	p.made++
	to := p.place.Path() + "/" + strconv.Itoa(p.made)
	if err := unix.Rename(c.dir, to); err != nil {
		return false
	}
	c.moved(to)
	p.idle = append(p.idle, c)
	p.restartLocked()
	return true
}

func (p *chrootPool) restartLocked() {
	if p.timer != nil && p.timer.Reset(p.patience) {
		return
	}
	p.expiring.Add(1)
	if p.timer == nil {
		p.timer = time.AfterFunc(p.patience, p.expire)
	}
}

func (p *chrootPool) expire() {
	defer p.expiring.Done()
	p.empty()
}

// empty deletes those that are idle.
func (p *chrootPool) empty() error {
	p.mu.Lock()
	place, idle := p.place, p.idle
	p.place, p.idle, p.unable, p.latest = nil, nil, false, nil
	p.mu.Unlock()
	if place == nil {
		return nil
	}
	var errs []error
	for _, c := range idle {
		errs = append(errs, p.disassemble(c))
	}
	return errors.Join(append(errs, place.Close())...)
}

// close deletes what there is and takes no more.
func (p *chrootPool) close() error {
	p.mu.Lock()
	p.closed = true
	if p.timer != nil && p.timer.Stop() {
		p.expiring.Done()
	}
	p.mu.Unlock()
	p.expiring.Wait()
	return p.empty()
}

// adapt removes what a builder with these inputs shall not find.
func (c *chroot) adapt(inputs []storepath.Path) error {
	before := len(c.points)
	keep, i := c.points[:0], 0
	for _, name := range c.points {
		for i < len(inputs) && inputs[i].Base() < name {
			i++
		}
		if i < len(inputs) && inputs[i].Base() == name {
			keep = append(keep, name)
		} else if err := removeTree(c.store, c.inner+"/"+name); err != nil {
			return err
		}
	}
	c.points = keep
	if c.assembled != nil && len(keep) < before {
		c.pool.forget(c.assembled, keep)
	}
	return nil
}

// tidy leaves of what a builder has had only what its inputs were mounted on: that was out of its reach, since the
// mounts were there before it. What it may have done to the directories themselves, as their owner, makes them unfit.
func (c *chroot) tidy(inputs []storepath.Path) error {
	flags, err := inodeFlags(c.root)
	if err != nil {
		return err
	}
	if err := c.tidyTmp(flags); err != nil {
		return err
	}
	if names, known := c.pool.madeIn(c); known {
		err = c.settle(inputs, names)
	} else {
		c.points = c.points[:0]
		err = c.keepOnly(inputs)
		slices.Sort(c.points)
	}
	if err != nil {
		return err
	}
	if err := asMade(c.inner, innerMode, flags); err != nil {
		return err
	}
	return touch(c.inner)
}

// tidyTmp leaves it empty. To make it anew costs more than to look.
func (c *chroot) tidyTmp(flags int) error {
	if entries, err := readNames(c.tmp, 1); err == nil && len(entries) == 0 && asMade(c.tmp, tmpMode, flags) == nil {
		return touch(c.tmp)
	}
	if err := removeTree(c.store, c.tmp); err != nil {
		return err
	}
	return c.makeTmp()
}

func readNames(dir string, most int) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(most)
	if err == io.EOF {
		err = nil
	}
	return names, errors.Join(err, f.Close())
}

// settle does what keepOnly does, knowing which names there may be besides c.points.
func (c *chroot) settle(inputs []storepath.Path, names []string) error {
	for _, name := range names {
		path := c.inner + "/" + name
		var st unix.Stat_t
		err := unix.Lstat(path, &st)
		if err != nil && err != unix.ENOENT {
			return err
		}
		there, kind := err == nil, st.Mode&unix.S_IFMT
		point := there && (kind == unix.S_IFDIR || kind == unix.S_IFREG) && isInput(inputs, name)
		at, had := slices.BinarySearch(c.points, name)
		switch {
		case point && !had:
			c.points = slices.Insert(c.points, at, name)
		case !point && had:
			c.points = slices.Delete(c.points, at, at+1)
		}
		if there && !point {
			if err := removeTree(c.store, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// keepOnly deletes from the builder's store what is no mount point of an input.
func (c *chroot) keepOnly(inputs []storepath.Path) error {
	f, err := os.Open(c.inner)
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		// A link is no mount: it is made anew each time.
		if (e.IsDir() || e.Type().IsRegular()) && isInput(inputs, e.Name()) {
			c.points = append(c.points, e.Name())
		} else if err := removeTree(c.store, c.inner+"/"+e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func isInput(inputs []storepath.Path, name string) bool {
	_, found := slices.BinarySearchFunc(inputs, name, func(p storepath.Path, name string) int { return strings.Compare(p.Base(), name) })
	return found
}
