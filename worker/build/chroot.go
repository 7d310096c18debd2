package build

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// chroot is what an isolated builder's root needs on disk: the store that it sees, from which outputs are renamed into
// the real one, and a /tmp that may grow. All else of that root is in memory (see [rootPlan]). The directory is in the
// store, next to the derivation, and only the daemon can enter it.
type chroot struct {
	dir   string // <derivation>.chroot
	root  string // dir/root
	inner string // the store directory beneath root; the builder sees nothing of what is above
	tmp   string // dir/tmp: elsewhere, since there are stores below /tmp
	mount string // dir/mnt, empty: where the launcher mounts the builder's root
	gid   int    // of the builder's group, -1 if it has none of its own
	store *localstore.Store
	// points are names in inner that an earlier builder's inputs were mounted on, sorted.
	points []string
	reused bool
	// assembled are inputs that are mounted already; nil for none.
	assembled *assembled
	pool      *chrootPool
	// met is true of a builder that could have met others: it may have passed the directory on.
	met bool
}

// chrootDir is where the directory of a derivation's builder is, as upstream's.
func chrootDir(store *localstore.Store, drv storepath.Path) string {
	return store.RealPath(drv) + ".chroot"
}

// moved notes where the directory is.
func (c *chroot) moved(dir string) {
	c.dir, c.root, c.tmp, c.mount = dir, dir+"/root", dir+"/tmp", dir+"/mnt"
	c.inner = c.root + string(c.store.Dir())
}

// make makes the directory anew; close it. gid is the group of the builder's user, -1 if it has none of its own
// (unix/build/chroot-derivation-builder.cc, prepareSandbox).
func (p *chrootPool) make(drv storepath.Path, gid int) (*chroot, error) {
	store := p.store
	dir := chrootDir(store, drv)
	c := &chroot{gid: gid, store: store, pool: p}
	c.moved(dir)
	err := unix.Mkdir(dir, 0o700)
	if err == unix.EEXIST {
		if err := removeTree(store, dir); err != nil {
			return nil, err
		}
		err = unix.Mkdir(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot create %s: %w", quotedPath(dir), err)
	}
	if err := c.fill(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// fill makes what is below. Nobody else can enter, so that names mean what they say.
func (c *chroot) fill() error {
	if err := os.MkdirAll(c.inner, 0o755); err != nil {
		return err
	}
	if err := unix.Mkdir(c.mount, 0o700); err != nil {
		return fmt.Errorf("cannot create %s: %w", quotedPath(c.mount), err)
	}
	if err := c.makeTmp(); err != nil {
		return err
	}
	if c.gid >= 0 {
		if err := unix.Chown(c.inner, 0, c.gid); err != nil {
			return fmt.Errorf("cannot change ownership of %s: %w", quotedPath(c.inner), err)
		}
	}
	// After the owner: changing that may clear bits.
	if err := unix.Chmod(c.inner, innerMode); err != nil {
		return fmt.Errorf("cannot change mode of %s: %w", quotedPath(c.inner), err)
	}
	return nil
}

// innerMode is the mode of the store that a builder sees.
const innerMode = 0o1775

func (c *chroot) makeTmp() error {
	if err := unix.Mkdir(c.tmp, 0o700); err != nil {
		return fmt.Errorf("cannot create %s: %w", quotedPath(c.tmp), err)
	}
	return unix.Chmod(c.tmp, tmpMode)
}

// tmpMode is the mode of a builder's /tmp.
const tmpMode = 0o1777

// path is where a store path of the builder's is.
func (c *chroot) path(p storepath.Path) string { return c.inner + "/" + p.Base() }

// close removes everything. It may be called more than once.
func (c *chroot) close() error {
	if c.dir == "" {
		return nil
	}
	err := errors.Join(c.pool.disassemble(c), removeTree(c.store, c.dir))
	if err == nil {
		c.dir = ""
	}
	return err
}

// isolate makes the builder's root, as far as it is on disk. finish removes it.
func (a *attempt) isolate() (err error) {
	a.j.feed.Message(activity.Chatty, "setting up chroot environment in "+quotedPath(a.store.RealPath(a.j.drvPath)+".chroot"))
	_, gid := a.owner()
	// A hook may put things into the directory.
	again := !a.usesUIDRange() && !a.hasOwnInput() && a.set.PreBuildHook == ""
	if again {
		if a.chroot = a.chroots.take(chrootDir(a.store, a.j.drvPath), gid, a.inputs); a.chroot != nil {
			if a.useAgain() {
				return nil
			}
			a.complain("remove root of builder", a.chroot.close())
		}
	}
	if a.chroot, err = a.chroots.make(a.j.drvPath, gid); err == nil && again && a.chroots.alike(a.inputs) {
		a.assembleAnew()
	}
	return err
}

// hasOwnInput tells whether an output is an input, too, which the builder shall not see.
func (a *attempt) hasOwnInput() bool {
	for _, o := range a.outputs {
		if !o.known.IsZero() && isInput(a.inputs, o.known.Base()) {
			return true
		}
	}
	return false
}

// renewChroot replaces one that an earlier builder has had, in the same place.
func (a *attempt) renewChroot() (err error) {
	if err := a.chroot.close(); err != nil {
		return err
	}
	met := a.chroot.met
	if a.chroot, err = a.chroots.make(a.j.drvPath, a.chroot.gid); err == nil {
		a.chroot.met = met
	}
	return err
}

// realOutput is where an output is found that the builder has made at that path.
func (a *attempt) realOutput(p storepath.Path) string {
	if a.chroot != nil {
		return a.chroot.path(p)
	}
	return a.store.RealPath(p)
}

// removeChroot ends the isolation. What an unsuccessful builder has made of outputs is left in the store, for those who
// want to see it (unix/build/chroot-derivation-builder.cc, cleanupBuild).
func (a *attempt) removeChroot(ok bool) {
	if a.chroot == nil {
		return
	}
	if !ok && a.j.mode == derivation.BuildNormal {
		for _, o := range a.outputs {
			if !o.known.IsZero() && !o.present && exists(a.chroot.path(o.known)) && !exists(a.store.RealPath(o.known)) {
				a.complain("keep output of failed build", a.store.Move(a.chroot.path(o.known), a.store.RealPath(o.known)))
			}
		}
	}
	// Whoever owns its namespaces could have unmounted what hid the rest.
	if !ok || a.stuck || a.usesUIDRange() || a.set.PreBuildHook != "" || a.chroot.met || a.chroot.tidy(a.inputs) != nil || !a.chroots.give(a.chroot) {
		a.complain("remove root of builder", a.chroot.close())
	}
	a.chroot = nil
}
