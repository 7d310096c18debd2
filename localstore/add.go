package localstore

import (
	"context"
	"fmt"

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
	// LocksHeld tells of paths that the caller has locked already; nil means none.
	LocksHeld func(storepath.Path) bool
	// Roots receives the path before it is added; nil leaves it open to collection.
	Roots interface {
		Add(ctx context.Context, paths ...storepath.Path) error
	}
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
	held *pathlock.Held // nil if the caller has the lock
}

// begin locks a path that is to be added; nil if it turns out to be valid.
func (s *Store) begin(ctx context.Context, h *handle, p storepath.Path, o *AddOptions) (*adding, error) {
	if err := o.root(ctx, p); err != nil {
		return nil, err
	}
	if valid, err := s.needless(ctx, h, p, o); valid || err != nil {
		return nil, err
	}
	a := &adding{s: s, h: h, opts: o, path: p}
	if o.LocksHeld == nil || !o.LocksHeld(p) {
		held, err := s.locks.Lock(ctx, []string{s.RealPath(p)}, pathlock.Options{OnWait: func(path string) {
			o.log().Message(activity.Info, fmt.Sprintf("waiting for lock on '%s'", path))
		}})
		if err != nil {
			return nil, err
		}
		a.held = held
	}
	// Somebody may have added it while we waited.
	valid, err := s.needless(ctx, h, p, o)
	if err == nil && !valid {
		err = s.step("locked")
	}
	if valid || err != nil {
		a.end(err)
		return nil, err
	}
	return a, nil
}

func (s *Store) needless(ctx context.Context, h *handle, p storepath.Path, o *AddOptions) (bool, error) {
	if o.Repair {
		return false, nil
	}
	return s.isValid(ctx, h, p)
}

// end releases the lock. What is valid needs no lock file any more.
func (a *adding) end(err error) {
	if a.held == nil {
		return
	}
	a.held.SetDeletion(err == nil)
	if e := a.held.Unlock(); e != nil {
		a.s.opts.Log(activity.Error, e.Error())
	}
}

// clear removes garbage from the path's place.
func (a *adding) clear(ctx context.Context) error {
	_, err := a.h.root.Delete(ctx, a.path.Base())
	return err
}

// replace puts a staged tree in the path's place. What was there goes out of the way first, whole.
func (a *adding) replace(ctx context.Context, st *Staging, name string) error {
	exists, err := a.h.root.Exists(a.path.Base())
	if err != nil {
		return err
	}
	if exists {
		// The staging directory takes it along when it goes.
		if err := a.h.root.Move(a.path.Base(), st.dir, "old"); err != nil {
			return err
		}
		if err := a.s.step("moved"); err != nil {
			return err
		}
	}
	if err := st.dir.Move(name, a.h.root, a.path.Base()); err != nil {
		if exists {
			err = joinErrors(err, st.dir.Move("old", a.h.root, a.path.Base()))
		}
		return err
	}
	return a.s.step("renamed")
}

// commit optimises, makes durable and registers what is in place and was checked.
func (a *adding) commit(ctx context.Context, info *pathinfo.Info, k known) error {
	if a.opts.Optimise {
		if err := a.s.optimise(ctx, a.h, a.path, a.opts); err != nil {
			return err
		}
	}
	if a.s.opts.FsyncStorePaths {
		if err := a.h.root.Sync(); err != nil {
			return err
		}
	}
	k.fresh = !a.opts.Repair
	return a.s.register(ctx, a.h, []*pathinfo.Info{info}, k)
}
