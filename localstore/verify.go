package localstore

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// VerifyOptions say what is verified. The zero value checks that valid paths exist.
type VerifyOptions struct {
	// CheckContents hashes everything, too.
	CheckContents bool
	// Quick makes CheckContents hash only what cannot be right by its size, types, modes and times, or has been touched.
	// Damage that leaves those as they were, such as that of a disk, is not found. It is an addition of ours.
	Quick bool
	// Repair removes wrong links and has wrong paths repaired.
	Repair bool
	// RepairPath makes a path right again; it is needed with Repair.
	RepairPath func(ctx context.Context, p storepath.Path) error
	// Log receives what is found; nil drops it.
	Log activity.Sink
}

// Verify looks whether what the database says is so, and removes from it paths that are gone, unless others
// refer to them. It tells whether errors are left. No collector runs meanwhile. Contents are hashed on all
// processors, so findings come in no order (libstore/local-store.cc, verifyStore).
func (s *Store) Verify(ctx context.Context, o VerifyOptions) (errorsFound bool, err error) {
	if o.Log == nil {
		o.Log = activity.Discard{}
	}
	h := s.acquire()
	defer h.release()
	v := &verifier{s: s, h: h, opts: &o}
	v.say(activity.Info, "reading the Nix store...")
	if !s.opts.ReadOnly {
		unlock, err := s.holdCollectors(ctx, o.Log)
		if err != nil {
			return false, err
		}
		defer unlock()
	}
	valid, err := v.existence(ctx)
	if err != nil {
		return true, err
	}
	if o.CheckContents {
		if err := v.links(ctx); err != nil {
			return true, err
		}
		if o.Quick {
			v.say(activity.Info, "checking sizes and types (setting 'quick-verify'), and hashes of what was touched...")
		} else {
			v.say(activity.Info, "checking store hashes...")
		}
		if err := inParallel(ctx, valid, v.contents); err != nil {
			return true, err
		}
	}
	return v.errors.Load(), nil
}

// holdCollectors keeps collectors from starting until it is undone.
func (s *Store) holdCollectors(ctx context.Context, log activity.Sink) (func(), error) {
	f, err := pathlock.OpenLockFile(filepath.Join(s.opts.StateDir, gcLockName), true)
	if err != nil {
		return nil, err
	}
	err = pathlock.Flock(ctx, f, pathlock.Shared, func() {
		log.Message(activity.Info, "waiting for the big garbage collector lock...")
	})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}

type verifier struct {
	s      *Store
	h      *handle
	opts   *VerifyOptions
	errors atomic.Bool

	logging sync.Mutex // messages that belong together come together
}

func (v *verifier) say(level activity.Level, format string, args ...any) {
	v.logging.Lock()
	defer v.logging.Unlock()
	v.opts.Log.Message(level, fmt.Sprintf(format, args...))
}

// complain reports an error, which clients show with this word before it.
func (v *verifier) complain(format string, args ...any) { v.say(activity.Error, format, args...) }

// existence gives the valid paths that are there.
func (v *verifier) existence(ctx context.Context) ([]storepath.Path, error) {
	names, err := v.h.root.Names()
	if err != nil {
		return nil, err
	}
	present := make(map[string]struct{}, len(names))
	for _, name := range names {
		present[name] = struct{}{}
	}
	v.say(activity.Info, "checking path existence...")
	all, err := v.s.AllValidPaths(ctx)
	if err != nil {
		return nil, err
	}
	e := &existence{verifier: v, present: present, state: make(map[storepath.Path]bool)}
	for _, p := range all {
		if err := e.check(ctx, p); err != nil {
			return nil, err
		}
	}
	return storepath.SortUnique(e.valid), nil
}

type existence struct {
	*verifier
	present map[string]struct{}
	state   map[storepath.Path]bool // of what was looked at: whether it stays valid
	valid   []storepath.Path
}

// check looks at what refers to a missing path first: if that can be removed, the path can, too.
func (e *existence) check(ctx context.Context, p storepath.Path) error {
	if _, done := e.state[p]; done {
		return nil
	}
	if _, ok := e.present[p.Base()]; ok {
		e.state[p] = true
		e.valid = append(e.valid, p)
		return nil
	}
	e.state[p] = false
	referrers, err := e.s.Referrers(ctx, p)
	if err != nil {
		return err
	}
	removable := true
	for _, r := range referrers {
		if r == p {
			continue
		}
		if err := e.check(ctx, r); err != nil {
			return err
		}
		removable = removable && !e.state[r]
	}
	return e.missing(ctx, p, removable)
}

func (e *existence) missing(ctx context.Context, p storepath.Path, removable bool) error {
	path := e.s.opts.StoreDir.Print(p)
	if removable {
		e.say(activity.Info, "path '%s' disappeared, removing from database...", path)
		_, err := e.s.Invalidate(ctx, p)
		if used := (*InUseError)(nil); errors.As(err, &used) {
			// A circle, or a referrer that came since.
			e.complain("path '%s' disappeared, but it still has valid referrers!", path)
			e.errors.Store(true)
			return nil
		}
		return err
	}
	e.complain("path '%s' disappeared, but it still has valid referrers!", path)
	return e.repair(ctx, p)
}

// repair makes a path right, if that is wanted, or notes the error.
func (v *verifier) repair(ctx context.Context, p storepath.Path) error {
	if !v.opts.Repair {
		v.errors.Store(true)
		return nil
	}
	err := v.opts.RepairPath(ctx, p)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	v.say(activity.Warn, "%v", err)
	v.errors.Store(true)
	return nil
}

// links checks the names of optimised files.
func (v *verifier) links(ctx context.Context) error {
	v.say(activity.Info, "checking link hashes...")
	names, err := v.h.links.Names()
	if err != nil {
		return err
	}
	return inParallel(ctx, names, v.link)
}

func (v *verifier) link(ctx context.Context, name string) error {
	if v.opts.Quick {
		if m, err := v.h.links.Measure(ctx, name, fstree.DumpOptions{}); err == nil && !m.Touched {
			return nil
		}
	}
	v.say(activity.Talkative, "checking contents of \"%s\"", name)
	hash, err := v.h.links.NameOfFile(ctx, name)
	if err != nil || hash == name {
		return err
	}
	path := v.h.links.Path() + "/" + name
	v.complain("link \"%s\" was modified! expected hash %s, got '%s'", path, name, hash)
	if !v.opts.Repair {
		v.errors.Store(true)
		return nil
	}
	if _, err := v.h.links.Delete(ctx, name); err != nil {
		return err
	}
	v.say(activity.Info, "removed link \"%s\"", path)
	return nil
}

// contents checks one path. Its own errors are told and counted, not returned: the others are to be checked, too.
func (v *verifier) contents(ctx context.Context, p storepath.Path) error {
	err := v.hash(ctx, p)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	level := activity.Warn
	if valid, e := v.s.isValid(ctx, v.h, p); e != nil || valid {
		level = activity.Error
	}
	v.say(level, "%v", err)
	v.errors.Store(true)
	return nil
}

func (v *verifier) hash(ctx context.Context, p storepath.Path) error {
	info, err := v.s.pathInfoOf(ctx, v.h, p)
	if err != nil {
		return err
	}
	if v.opts.Quick && v.looksRight(ctx, info) {
		return nil
	}
	path := v.s.opts.StoreDir.Print(p)
	v.say(activity.Talkative, "checking contents of '%s'", path)
	sum := &plainSum{hash: nixhash.SHA256.New()}
	if err := v.s.dumpMapped(ctx, v.h, p, sum); err != nil {
		return err
	}
	got := nixhash.FromSum(nixhash.SHA256, sum.hash)
	unknown := isNullHash(info.NarHash)
	if !unknown && info.NarHash != got {
		v.complain("path '%s' was modified! expected hash '%s', got '%s'", path, info.NarHash, got)
		return v.repair(ctx, p)
	}
	if unknown {
		v.say(activity.Info, "fixing missing hash on '%s'", path)
	}
	if info.NarSize == 0 {
		v.say(activity.Info, "updating size field on '%s' to %d", path, sum.size)
	}
	if unknown || info.NarSize == 0 {
		return v.fill(ctx, info, got, sum.size)
	}
	return nil
}

// looksRight tells whether nothing speaks against the contents being those that were registered. What cannot be
// measured is left to hashing, which says what is wrong.
func (v *verifier) looksRight(ctx context.Context, info *pathinfo.Info) bool {
	m, err := v.h.root.Measure(ctx, info.Path.Base(), fstree.DumpOptions{CaseHack: v.s.opts.CaseHack})
	return err == nil && !m.Touched && m.Size == info.NarSize && !isNullHash(info.NarHash)
}

// isNullHash tells whether a hash is the zeros that very old databases have for an unknown one.
func isNullHash(h nixhash.Hash) bool {
	for _, b := range h.Digest() {
		if b != 0 {
			return false
		}
	}
	return true
}

func (v *verifier) fill(ctx context.Context, info *pathinfo.Info, hash nixhash.Hash, size uint64) error {
	v.h.cache.begin(info.Path)
	defer v.h.cache.end(info.Path, false)
	return public(v.h.db.Write(ctx, func(tx *db.Tx) error {
		return tx.SetHash(v.s.opts.StoreDir.Print(info.Path), hash.Format(nixhash.Base16, true), size)
	}))
}

// inParallel runs f for all items on all processors, and stops at the first error.
func inParallel[T any](ctx context.Context, items []T, f func(context.Context, T) error) error {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			for {
				i := next.Add(1) - 1
				if i >= int64(len(items)) {
					return nil
				}
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err := f(ctx, items[i]); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// dumpMapped is dump for a sum that is computed while the data is written to it.
func (s *Store) dumpMapped(ctx context.Context, h *handle, p storepath.Path, sum *plainSum) error {
	return h.root.Dump(ctx, p.Base(), sum, fstree.DumpOptions{CaseHack: s.opts.CaseHack, Map: true})
}

// plainSum hashes and counts. All processors are busy with other paths, so there is no use in [hashWriter].
type plainSum struct {
	hash hash.Hash
	size uint64
}

func (w *plainSum) Write(p []byte) (int, error) {
	w.size += uint64(len(p))
	return w.hash.Write(p)
}
