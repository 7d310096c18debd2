package build

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
)

// assembled is what inputs are mounted on a chroot's store directory once, for one builder after another: each gets a
// copy of all these mounts (see [sandbox.Assembly]), which nobody else sees.
//
// A mount may be older than the build that uses it: meanwhile its path may have been collected and made anew, repaired,
// or replaced by a link to an equal file. So the store directory is watched, and when one of the names in it came to lead
// elsewhere the whole chroot is not used again.
//
// The store directory that the builder sees is watched, too: what has come and gone there is what is to be tidied up after
// it, and nobody has to look at hundreds of mount points again.
type assembled struct {
	mounts *sandbox.Assembly

	// Guarded by chrootPool.mu.
	names map[string]struct{} // which are mounted
	links int                 // inputs that are symbolic links: those are made for each builder
	stale bool

	inner  int      // the number of the watch of the builder's store, -1 without one
	made   []string // names that have come or gone there
	unsure bool     // there may be more
}

// mostMade bounds how many names are remembered.
const mostMade = 4096

func (m *assembled) note(name string) {
	switch n := len(m.made); {
	case m.unsure || n > 0 && m.made[n-1] == name:
	case n == mostMade:
		m.made, m.unsure = nil, true
	default:
		m.made = append(m.made, name)
	}
}

// assembleFrom is from how many inputs on it is worth it. One mount takes about ten microseconds, to make and to end,
// one of a copy less than two; and what makes them all is another process.
const assembleFrom = 32

// useAgain prepares a chroot that others have had. It is false if it will not do.
func (a *attempt) useAgain() bool {
	c := a.chroot
	if err := c.adapt(a.inputs); err != nil {
		a.complain("reuse root of builder", err)
		return false
	}
	switch a.chroots.judge(c.assembled, len(a.inputs)) {
	case assembledFits:
		return true
	case assembledStale:
		return false
	}
	a.assembleAnew()
	return true
}

// assembleAnew prepares what the next builders need as well.
func (a *attempt) assembleAnew() {
	c := a.chroot
	err := a.chroots.disassemble(c)
	if err == nil && a.chroots.enroll(c, a.inputNames()) {
		err = a.assemble()
		c.reused = true
	}
	if err != nil {
		a.chroots.cannotAssemble()
		a.complain("assemble inputs", errors.Join(err, a.chroots.disassemble(c)))
	}
}

func (a *attempt) inputNames() map[string]struct{} {
	names := make(map[string]struct{}, len(a.inputs))
	for _, p := range a.inputs {
		names[p.Base()] = struct{}{}
	}
	return names
}

// alike tells whether the builder before had mostly the same inputs, so that the one after may be expected to.
func (p *chrootPool) alike(inputs []storepath.Path) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.latest
	p.latest = inputs
	return !p.closed && len(inputs) >= assembleFrom && 2*difference(before, storepath.Path.Base, inputs) <= len(inputs)
}

// assemble mounts what has been enrolled.
func (a *attempt) assemble() error {
	ids, _, _, err := a.sandboxIDs()
	if err != nil {
		return err
	}
	binds := make([]sandbox.Bind, 0, len(a.inputs))
	var links []string
	for _, p := range a.inputs {
		source := a.store.RealPath(p)
		var st unix.Stat_t
		if err := unix.Lstat(source, &st); err != nil {
			return fmt.Errorf("getting attributes of path '%s': %w", source, err)
		}
		if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFLNK {
			links = append(links, p.Base())
		} else {
			binds = append(binds, sandbox.Bind{Name: p.Base(), Source: source, File: kind != unix.S_IFDIR})
		}
	}
	a.chroots.except(a.chroot.assembled, links)
	a.chroot.assembled.mounts, err = a.o.Launcher.Assemble(a.chroot.inner, a.chroot.mount, binds, a.sandboxUser(), ids)
	return err
}

// fitness is how an assembly suits a builder.
type fitness uint8

const (
	assembledFits  fitness = iota // it is right still, and nearly all that a builder needs
	assembledLacks                // there is more to mount than is worth doing for one builder
	assembledStale
)

// judge says how an assembly, which may be nil, suits a builder with so many inputs.
func (p *chrootPool) judge(m *assembled, inputs int) fitness {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m != nil {
		if !p.look() || m.stale {
			return assembledStale
		}
		inputs -= len(m.names) + m.links
	}
	if inputs < assembleFrom {
		return assembledFits
	}
	return assembledLacks
}

// look notes what has changed in the store. It is false if that cannot be known.
func (p *chrootPool) look() bool {
	if p.watch == nil {
		return false
	}
	known := p.watch.changes(func(_ int, name string) {
		for m := range p.assembled {
			if _, there := m.names[name]; there {
				m.stale = true
			}
		}
	})
	if !known {
		p.endWatch()
	}
	return known
}

func (p *chrootPool) endWatch() {
	if p.watch != nil {
		p.watch.close()
		p.watch = nil
	}
	for m := range p.assembled {
		m.stale = true
	}
}

// enroll begins to watch the names. It is false if the machine cannot do it.
func (p *chrootPool) enroll(c *chroot, names map[string]struct{}) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unable {
		return false
	}
	if p.watch == nil {
		watch, err := watchStore(p.store.RealDir())
		if err != nil {
			p.unable = true
			return false
		}
		p.watch = watch
	}
	c.assembled = &assembled{names: names, inner: p.watchInner(c.inner)}
	if p.assembled == nil {
		p.assembled = make(map[*assembled]struct{})
	}
	p.assembled[c.assembled] = struct{}{}
	return true
}

// watchInner gives the number of the watch, or -1: then all names are looked at.
func (p *chrootPool) watchInner(dir string) int {
	if p.inner == nil {
		watch, err := newDirWatch()
		if err != nil {
			return -1
		}
		p.inner = watch
	}
	number, err := p.inner.addInner(dir)
	if err != nil {
		return -1
	}
	return number
}

// madeIn are the names that have come or gone in a builder's store since it was asked last; known is false if there may
// be more.
func (p *chrootPool) madeIn(c *chroot) (names []string, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := c.assembled
	if m == nil || m.inner < 0 {
		return nil, false
	}
	told := p.inner.changes(func(dir int, name string) {
		for m := range p.assembled {
			if m.inner == dir {
				m.note(name)
			}
		}
	})
	if !told {
		for m := range p.assembled {
			m.made, m.unsure = nil, true
		}
	}
	names, known = m.made, !m.unsure
	m.made, m.unsure = nil, false
	return names, known
}

// cannotAssemble says so until there are no idle chroots any more.
func (p *chrootPool) cannotAssemble() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unable = true
}

// except leaves out names that are symbolic links.
func (p *chrootPool) except(m *assembled, links []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m.links = len(links)
	for _, name := range links {
		delete(m.names, name)
	}
}

// forget leaves out what is not mounted any more, since what it was mounted on is gone. points are sorted.
func (p *chrootPool) forget(m *assembled, points []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range m.names {
		if _, there := slices.BinarySearch(points, name); !there {
			delete(m.names, name)
		}
	}
}

// disassemble lets the mounts go that no builder has.
func (p *chrootPool) disassemble(c *chroot) error {
	m := c.assembled
	if m == nil {
		return nil
	}
	c.assembled = nil
	p.mu.Lock()
	delete(p.assembled, m)
	if m.inner >= 0 {
		p.inner.remove(m.inner)
	}
	if len(p.assembled) == 0 {
		p.endWatch()
		if p.inner != nil {
			p.inner.close()
			p.inner = nil
		}
	}
	p.mu.Unlock()
	if m.mounts == nil {
		return nil
	}
	return m.mounts.Close()
}
