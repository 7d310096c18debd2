package localstore

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"path/filepath"
	"runtime"
	"strings"
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
	// Describe gives the text of an error that concerns one path, as a line of the log of that level; nil puts the level
	// before it.
	Describe func(level activity.Level, err error) string
}

// Verify looks whether what the database says is so, and removes from it paths that are gone, unless others
// refer to them. It tells whether errors are left. No collector runs meanwhile. Contents are hashed on all
// processors, so findings come in no order (libstore/local-store.cc, verifyStore).
func (s *Store) Verify(ctx context.Context, o VerifyOptions) (errorsFound bool, err error) {
	if o.Log == nil {
		o.Log = activity.Discard{}
	}
	if o.Describe == nil {
		o.Describe = describePlainly
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
	if err := v.existence(ctx); err != nil {
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
		if err := v.allContents(ctx); err != nil {
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
	// Valid paths that were looked for and are not there.
	missing map[storepath.Path]struct{}
	pairs   *pairing // of those that check contents; nil until then

	logging sync.Mutex // messages that belong together come together
}

func (v *verifier) say(level activity.Level, format string, args ...any) {
	v.tell(level, fmt.Sprintf(format, args...))
}

func (v *verifier) tell(level activity.Level, text string) {
	v.logging.Lock()
	defer v.logging.Unlock()
	v.opts.Log.Message(level, text)
}

// complain reports an error, which clients show with this word before it.
func (v *verifier) complain(format string, args ...any) { v.say(activity.Error, format, args...) }

// existence looks whether all valid paths are there.
func (v *verifier) existence(ctx context.Context) error {
	present, err := namesOf(v.h.root)
	if err != nil {
		return err
	}
	if v.s.lower() == nil { // as upstream
		v.say(activity.Info, "checking path existence...")
	}
	rows, err := v.s.newNameReader(ctx, v.h)
	if err != nil {
		return err
	}
	v.missing = make(map[storepath.Path]struct{})
	e := &existence{v, present, make(map[storepath.Path]struct{})}
	return rows.each(ctx, func(ctx context.Context, r validRow) error { return e.check(ctx, r.path) })
}

type existence struct {
	*verifier
	present *nameSet
	// Those missing that stay in the database, since others need them.
	needed map[storepath.Path]struct{}
}

// check looks at what refers to a missing path first: if that can be removed, the path can, too.
func (e *existence) check(ctx context.Context, p storepath.Path) error {
	if _, done := e.missing[p]; done || e.present.has(p.Base()) {
		return nil
	}
	e.missing[p] = struct{}{}
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
		_, missing := e.missing[r]
		_, needed := e.needed[r]
		removable = removable && missing && !needed
	}
	return e.lost(ctx, p, removable)
}

func (e *existence) lost(ctx context.Context, p storepath.Path, removable bool) error {
	path := e.s.opts.StoreDir.Print(p)
	if removable {
		e.say(activity.Info, "path '%s' disappeared, removing from database...", path)
		_, err := e.s.Invalidate(ctx, p)
		if used := (*InUseError)(nil); !errors.As(err, &used) {
			return err
		}
		// A circle, or a referrer that came since.
	}
	e.needed[p] = struct{}{}
	e.complain("path '%s' disappeared, but it still has valid referrers!", path)
	if err := e.repair(ctx, p); err != nil {
		return e.note(ctx, activity.Warn, err)
	}
	return nil
}

func describePlainly(level activity.Level, err error) string {
	prefix := "error: "
	if level == activity.Warn {
		prefix = "warning: "
	}
	return prefix + strings.ReplaceAll(err.Error(), "\n", "\n       ")
}

// repair makes a path right, if that is wanted, or notes that it is not.
func (v *verifier) repair(ctx context.Context, p storepath.Path) error {
	if !v.opts.Repair {
		v.errors.Store(true)
		return nil
	}
	return v.pairs.away(func() error { return v.opts.RepairPath(ctx, p) })
}

// note tells of an error that concerns one path, so that the others are still looked at.
func (v *verifier) note(ctx context.Context, level activity.Level, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	v.say(level, "%s", v.opts.Describe(level, err))
	v.errors.Store(true)
	return nil
}

// links checks the names of optimised files.
func (v *verifier) links(ctx context.Context) error {
	v.say(activity.Info, "checking link hashes...")
	const atOnce = 64
	names := make(chan []string, runtime.GOMAXPROCS(0))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(names)
		return eachSome(ctx, v.h.links, atOnce, names)
	})
	group.Go(func() error {
		return onAllProcessors(ctx, func(ctx context.Context) error {
			for some := range names {
				for _, name := range some {
					if err := v.link(ctx, name); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
	return group.Wait()
}

// eachSome sends the names of a directory, so many at a time.
func eachSome(ctx context.Context, d *fstree.Dir, atOnce int, to chan<- []string) error {
	some := make([]string, 0, atOnce)
	send := func() {
		select {
		case to <- some:
		case <-ctx.Done():
		}
		some = make([]string, 0, atOnce)
	}
	err := d.EachName(func(name string) {
		if some = append(some, name); len(some) == atOnce {
			send()
		}
	})
	send()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

func (v *verifier) link(ctx context.Context, name string) error {
	if v.opts.Quick {
		if m, err := v.h.links.Measure(ctx, name, fstree.DumpOptions{}); err == nil && !m.Touched {
			return nil
		}
	}
	v.tell(activity.Talkative, "checking contents of \""+name+"\"")
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

// allContents checks what is there, on all processors.
func (v *verifier) allContents(ctx context.Context) error {
	rows, err := v.s.newRowReader(ctx, v.h)
	if err != nil {
		return err
	}
	v.pairs = newPairing()
	return onWorkers(ctx, v.pairs.count(), func(ctx context.Context) error {
		defer v.pairs.change(-1)
		return rows.each(ctx, func(ctx context.Context, r validRow) error {
			if _, missing := v.missing[r.path]; missing {
				return nil
			}
			return v.contents(ctx, r)
		})
	})
}

// contents checks one path. Its own errors are told and counted, not returned: the others are to be checked, too.
func (v *verifier) contents(ctx context.Context, r validRow) error {
	err := v.hash(ctx, r)
	if err == nil {
		return nil
	}
	level := activity.Warn
	if valid, e := v.s.isValid(ctx, v.h, r.path); e != nil || valid {
		level = activity.Error
	}
	return v.note(ctx, level, err)
}

func (v *verifier) hash(ctx context.Context, r validRow) error {
	info, err := v.s.fromRow(r.path, r.row)
	if err != nil {
		return err
	}
	if v.opts.Quick && v.looksRight(ctx, info) {
		return nil
	}
	v.tell(activity.Talkative, "checking contents of '"+r.row.Path+"'")
	got, size, err := v.sum(ctx, r.path, info.NarHash.Algo())
	if err != nil || info.NarHash == got && info.NarSize != 0 {
		return err
	}
	// The row was read some time ago, and the path may have been replaced since.
	now, err := v.info(ctx, r.path)
	if err == nil && now.NarHash != info.NarHash {
		got, size, err = v.sum(ctx, r.path, now.NarHash.Algo())
	}
	if err != nil {
		return err
	}
	return v.judge(ctx, now, got, size)
}

func (v *verifier) sum(ctx context.Context, p storepath.Path, algo nixhash.Algo) (nixhash.Hash, uint64, error) {
	sum := &plainSum{hash: algo.New(), pairs: v.pairs}
	err := v.s.dumpMapped(ctx, v.h, p, sum)
	if errors.Is(err, errTogether) {
		// The other one's file, perhaps.
		sum = &plainSum{hash: algo.New()}
		err = v.s.dumpMapped(ctx, v.h, p, sum)
	}
	return nixhash.FromSum(algo, sum.hash), sum.size, err
}

// judge complains of a path whose hash is not what it should be, or fills in what was not known of it.
func (v *verifier) judge(ctx context.Context, info *pathinfo.Info, got nixhash.Hash, size uint64) error {
	path := v.s.opts.StoreDir.Print(info.Path)
	unknown := isNullHash(info.NarHash)
	if !unknown && info.NarHash != got {
		v.complain("path '%s' was modified! expected hash '%s', got '%s'", path, info.NarHash, got)
		return v.repair(ctx, info.Path)
	}
	if unknown {
		v.say(activity.Info, "fixing missing hash on '%s'", path)
	}
	if info.NarSize == 0 {
		v.say(activity.Info, "updating size field on '%s' to %d", path, size)
	}
	if unknown || info.NarSize == 0 {
		return v.fill(ctx, info, got, size)
	}
	return nil
}

// info is PathInfo as the database has it. What clients ask for stays in memory, rather than all that is verified.
func (v *verifier) info(ctx context.Context, p storepath.Path) (*pathinfo.Info, error) {
	row, found, err := v.h.db.QueryPath(ctx, v.s.opts.StoreDir.Print(p))
	if err != nil {
		return nil, public(err)
	}
	if !found {
		return nil, v.s.notValid(p)
	}
	return v.s.fromRow(p, &row)
}

// looksRight tells whether nothing speaks against the contents being those that were registered. What cannot be
// measured is left to hashing, which says what is wrong.
func (v *verifier) looksRight(ctx context.Context, info *pathinfo.Info) bool {
	m, err := v.h.root.Measure(ctx, info.Path.Base(), fstree.DumpOptions{CaseHack: v.s.opts.CaseHack})
	return err == nil && !m.Touched && m.Size == info.NarSize && !isNullHash(info.NarHash)
}

// isNullHash tells whether a hash is the zeros that very old databases have for an unknown one.
func isNullHash(h nixhash.Hash) bool {
	if h.Algo() != nixhash.SHA256 {
		return false
	}
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

// dumpMapped is dump for a sum that is computed while the data is written to it.
func (s *Store) dumpMapped(ctx context.Context, h *handle, p storepath.Path, sum *plainSum) error {
	return h.root.Dump(ctx, p.Base(), sum, fstree.DumpOptions{CaseHack: s.opts.CaseHack, Map: true, Unread: true})
}

// plainSum hashes and counts. All processors are busy with other paths, so there is no use in [hashWriter].
type plainSum struct {
	hash  hash.Hash
	size  uint64
	pairs *pairing // to hash together with others; nil for alone
}

func (w *plainSum) Write(p []byte) (int, error) {
	w.size += uint64(len(p))
	if err := w.pairs.write(w.hash, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
