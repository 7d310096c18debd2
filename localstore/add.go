package localstore

import (
	"context"

	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// AddOptions say how contents are added. The zero value adds what is not valid yet and checks no signatures.
type AddOptions struct {
	// Repair replaces contents that are valid.
	Repair bool
	// RequireSigs refuses paths without a signature by one of TrustedKeys that are not content-addressed, unless
	// DontCheckSigs is set.
	RequireSigs   bool
	DontCheckSigs bool
	TrustedKeys   pathinfo.Keys
	// Optimise hard-links the files to equal ones.
	Optimise bool
	// Log receives what the client shall see; nil drops it.
	Log activity.Sink
	// LeaveUnread says that what follows an archive does not matter: one that turns out not to be needed is not read at
	// all, so that it need not even be fetched. For AddNAR alone.
	LeaveUnread bool
	// LocksHeld tells of paths that the caller has locked already; nil means none.
	LocksHeld func(storepath.Path) bool
	// Roots receives the path before it is added; nil leaves it open to collection.
	Roots interface {
		Add(ctx context.Context, paths ...storepath.Path) error
	}
	// Room is called before contents are written that are not there yet, and may wait for space to be made; nil does not.
	Room func(ctx context.Context) error
}

func (o *AddOptions) room(ctx context.Context) error {
	if o.Room == nil {
		return nil
	}
	return o.Room(ctx)
}

func (o *AddOptions) root(ctx context.Context, p storepath.Path) error {
	if o.Roots == nil {
		return nil
	}
	return o.Roots.Add(ctx, p)
}

func (o *AddOptions) log() activity.Sink {
	if o.Log == nil {
		return activity.Discard{}
	}
	return o.Log
}

// adding is one path on its way into the store, locked.
type adding struct {
	s    *Store
	h    *handle
	opts *AddOptions
	path storepath.Path
	// The lock: one of the two, or neither if the caller has it.
	short *fstree.LockFile
	held  *pathlock.Held
	// absent is true if there was nothing in the path's place when it was locked.
	absent bool
}

// begin locks a path that is to be added; nil if it turns out to be valid.
func (s *Store) begin(ctx context.Context, h *handle, p storepath.Path, o *AddOptions) (*adding, error) {
	if err := o.root(ctx, p); err != nil {
		return nil, err
	}
	if valid, _, err := s.needless(ctx, h, p, o); valid || err != nil {
		return nil, err
	}
	if err := o.room(ctx); err != nil {
		return nil, err
	}
	a := &adding{s: s, h: h, opts: o, path: p}
	if err := a.lock(ctx); err != nil {
		return nil, err
	}
	return a.recheck(ctx)
}

// recheck gives nil if somebody has added the path while its lock was waited for.
func (a *adding) recheck(ctx context.Context) (*adding, error) {
	valid, absent, err := a.s.needless(ctx, a.h, a.path, a.opts)
	a.absent = absent
	if err == nil && !valid {
		err = a.s.step("locked")
	}
	if valid || err != nil {
		a.end(err)
		return nil, err
	}
	return a, nil
}

func (a *adding) lock(ctx context.Context) error {
	locked, err := a.tryLock(ctx, true)
	if locked || err != nil {
		return err
	}
	a.held, err = a.s.locks.Lock(ctx, []string{a.s.RealPath(a.path)}, pathlock.Options{})
	return err
}

// tryLock locks the path if nobody else has it; with wait set it waits for others that add it, too.
func (a *adding) tryLock(ctx context.Context, wait bool) (bool, error) {
	if a.opts.LocksHeld != nil && a.opts.LocksHeld(a.path) {
		return true, nil
	}
	var err error
	a.short, err = a.h.short.lock(ctx, a.path.Base(), wait)
	return a.short != nil, err
}

// needless tells whether the path is valid, so that nothing is to be done. Asking the disk is so much cheaper than asking
// the database that it comes first: what is not there must be added, even if it was valid. It also tells whether it is
// known that nothing is there.
func (s *Store) needless(ctx context.Context, h *handle, p storepath.Path, o *AddOptions) (valid, absent bool, err error) {
	if o.Repair {
		return false, false, nil
	}
	if exists, err := h.root.Exists(p.Base()); !exists || err != nil {
		return false, err == nil, err
	}
	valid, err = s.isValid(ctx, h, p)
	return valid, false, err
}

// end releases the lock. What is valid needs no lock file any more.
func (a *adding) end(err error) { a.endAs(err, false) }

// endAs is end. With more set a lock file may stay until the request's end, see [shortLocks.settle].
func (a *adding) endAs(err error, more bool) {
	var e error
	switch {
	case a.short != nil && more:
		e = a.h.short.release(a.path.Base(), a.short)
	case a.short != nil:
		e = a.h.short.unlock(a.path.Base(), a.short)
	case a.held != nil:
		a.held.SetDeletion(err == nil)
		e = a.held.Unlock()
	}
	if e != nil {
		a.s.opts.Log(activity.Error, e.Error())
	}
}

// clear removes garbage from the path's place.
func (a *adding) clear(ctx context.Context) error {
	if a.absent {
		return nil
	}
	_, err := a.h.root.Delete(ctx, a.path.Base())
	return err
}

// replace puts a staged tree in the path's place. What was there goes the other way, and away with the staging
// directory; at no time is there nothing.
func (a *adding) replace(st *Staging, name string) error {
	exists, err := a.h.root.Exists(a.path.Base())
	if err != nil {
		return err
	}
	if exists && a.opts.Repair && a.s.opts.tracksDurability() {
		// The row is an old one: nobody would verify what it stands for after a power cut.
		if err := st.dir.SyncFS(); err != nil {
			return err
		}
	}
	if exists {
		_, err = a.s.exchange(st.dir, name, a.h.root, a.path.Base())
	} else {
		err = st.dir.Move(name, a.h.root, a.path.Base())
	}
	if err != nil {
		return err
	}
	return a.s.step("renamed")
}

// commit registers what is in place and was checked. What replaces something is optimised then: what it is linked to has
// to be looked into.
func (a *adding) commit(ctx context.Context, info *pathinfo.Info, k known) error {
	if a.opts.Optimise && a.opts.Repair {
		if err := a.s.optimise(ctx, a.h, a.path, a.opts); err != nil {
			return err
		}
	}
	return a.s.register(ctx, a.h, []*pathinfo.Info{info}, k)
}
