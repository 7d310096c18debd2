package localstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// Store is an open store. All methods are safe for concurrent use.
type Store struct {
	// Static after Open.
	opts  Options
	locks *pathlock.Table
	drvs  *drvCache
	memo  *derivation.Memo
	boot  string  // of the machine; empty if unknown
	syncs *syncer // nil if nothing is synced in the background

	refresh sync.Mutex // held while the handle is replaced
	current atomic.Pointer[handle]
	temps   tempNames
	staged  stagings
	logs    BuildLogs
	pieces  sync.Pool // of *[minPiece]byte, for what passes through memory

	// Guards roots.
	rootsMu sync.Mutex
	roots   map[*TempRoots]struct{}

	late lateRoots
	told atomic.Pointer[ownCollector] // see TellRoots; nil while none runs

	remount atomic.Bool // something was deleted behind the back of an overlay
}

// Open opens the store, creating what is missing of its directories and database, and waits for another process
// that upgrades it. If the machine was restarted, it verifies what was registered shortly before, see
// Options.SyncEvery. Close it in the end.
func Open(ctx context.Context, o Options) (*Store, error) {
	o = o.withDefaults()
	boot, err := bootID()
	if err != nil {
		o.Log(activity.Warn, fmt.Sprintf("cannot tell restarts of the machine: %v", err))
	}
	s := &Store{opts: o, boot: boot, locks: pathlock.New(), drvs: newDrvCache(), memo: derivation.NewMemo(memoSize), roots: make(map[*TempRoots]struct{}), logs: BuildLogs{Dir: o.LogDir}}
	h, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	unsynced, err := s.checkDurable(ctx, h)
	if err != nil {
		h.release()
		return nil, err
	}
	s.current.Store(h)
	if o.tracksDurability() {
		s.syncs = startSyncer(&s.opts, func() error { return s.makeDurable(context.Background()) })
	}
	if unsynced {
		s.syncs.registered(0)
	}
	return s, nil
}

// handle is what is open of a store until its files are replaced: its users keep it open.
type handle struct {
	db    *db.DB
	root  *fstree.Dir // the store directory
	links *fstree.Dir
	temp  *fstree.Dir // nil in a read-only store
	gc    *gcGate
	short *shortLocks
	cache *infoCache
	// Syncs that those who wait for them share: of the files, and of the database.
	contents, rows groupSync

	lists bool   // what is made in the store inherits access control lists
	epoch uint64 // tells this handle from those before and after

	users  atomic.Int64 // those that use it, and one for the store; zero for closed
	ending sync.Once
	done   chan struct{}
	err    error // of closing; set before done is closed
}

func (s *Store) open(ctx context.Context) (_ *handle, err error) {
	o := &s.opts
	if o.Overlay != nil && o.Overlay.Check != nil {
		if err := o.Overlay.Check(); err != nil {
			return nil, err
		}
	}
	if err := o.createDirs(); err != nil {
		return nil, err
	}
	h := &handle{done: make(chan struct{})}
	if old := s.current.Load(); old != nil {
		h.epoch = old.epoch + 1
	}
	h.users.Store(1)
	defer func() {
		if err != nil {
			h.release()
		}
	}()
	if h.root, err = fstree.OpenRoot(o.RealDir); err != nil {
		return nil, err
	}
	h.short = newShortLocks(h.root, o.shortLocksDir())
	if h.links, err = fstree.OpenDir(o.linksDir()); err != nil {
		return nil, err
	}
	if !o.ReadOnly {
		if h.temp, err = fstree.OpenDir(o.tempRootsDir()); err != nil {
			return nil, err
		}
		h.gc = &gcGate{path: filepath.Join(o.StateDir, gcLockName)}
	}
	if h.db, err = db.Open(ctx, o.database()); err != nil {
		return nil, err
	}
	h.lists = h.root.InheritsACL()
	h.cache = newInfoCache(o.PathInfoCacheSize, h.db.Generation)
	return h, nil
}

func (o *Options) database() db.Options {
	return db.Options{
		Dir:           o.dbDir(),
		ReadOnly:      o.ReadOnly,
		UseWAL:        o.UseWAL,
		FsyncMetadata: o.FsyncMetadata,
		WantCA:        o.CADerivations,
		ReservedSize:  o.ReservedSpace,
		Logger:        func(text string) { o.Log(activity.Info, text) },
	}
}

// acquire gives the current handle; release it.
func (s *Store) acquire() *handle {
	for {
		h := s.current.Load()
		for n := h.users.Load(); n > 0; n = h.users.Load() {
			if h.users.CompareAndSwap(n, n+1) {
				return h
			}
		}
		if s.current.Load() == h {
			// The store was closed; the database says so to whoever asks it.
			h.users.Add(1)
			return h
		}
	}
}

func (h *handle) release() {
	if h.users.Add(-1) == 0 {
		h.ending.Do(h.close)
	}
}

func (h *handle) close() {
	var errs []error
	if h.db != nil {
		errs = append(errs, h.db.Close())
	}
	if h.short != nil {
		errs = append(errs, h.short.close())
	}
	for _, dir := range []*fstree.Dir{h.temp, h.links, h.root} {
		if dir != nil {
			errs = append(errs, dir.Close())
		}
	}
	if h.gc != nil {
		errs = append(errs, h.gc.close())
	}
	h.err = errors.Join(errs...)
	close(h.done)
}

// stale tells whether what the handle has open is no longer what the paths lead to.
func (h *handle) stale() bool {
	return h.db.Stale() || !h.root.Same() || !h.links.Same() || h.temp != nil && !h.temp.Same()
}

// Refresh looks whether the database or the directories were deleted or replaced, and if so opens them anew, creating
// what is missing. What runs meanwhile goes on with what it has. It costs a few microseconds if nothing happened.
func (s *Store) Refresh(ctx context.Context) error {
	if err := s.refreshLower(ctx); err != nil {
		return err
	}
	h := s.acquire()
	stale := h.stale()
	defer h.release()
	if !stale {
		return nil
	}
	s.refresh.Lock()
	defer s.refresh.Unlock()
	if s.current.Load() != h {
		return nil
	}
	fresh, err := s.open(ctx)
	if err != nil {
		return fmt.Errorf("reopen store: %w", err)
	}
	if _, err := s.checkDurable(ctx, fresh); err != nil {
		fresh.release()
		return fmt.Errorf("reopen store: %w", err)
	}
	s.drvs.clear()
	s.current.Store(fresh)
	h.release()
	s.syncs.registered(0)
	return nil
}

// Close closes the store when everything that uses it has ended. It must be called once.
func (s *Store) Close() error {
	s.syncs.close()
	err := s.late.close()
	h := s.current.Load()
	h.release()
	<-h.done
	return errors.Join(err, h.err, s.closeLower())
}

// Dir is the directory that paths are printed with.
func (s *Store) Dir() storepath.Dir { return s.opts.StoreDir }

// RealDir is where the files are.
func (s *Store) RealDir() string { return s.opts.RealDir }

// StateDir holds the database, roots and locks.
func (s *Store) StateDir() string { return s.opts.StateDir }

// Tidy has space given back that the database does not need any more, if that costs little and nobody waits for it. It
// returns at once; Close waits.
func (s *Store) Tidy() {
	h := s.acquire()
	go func() {
		defer h.release() // for which Close waits
		h.db.Tidy()
	}()
}

// Reserve makes the file again that a collection deletes to have room to work, if there is space for it.
func (s *Store) Reserve() {
	h := s.acquire()
	defer h.release()
	h.db.Reserve()
}

// LogDir holds build logs.
func (s *Store) LogDir() string { return s.opts.LogDir }

// RealPath is where the files of a path are, or would be.
func (s *Store) RealPath(p storepath.Path) string { return s.opts.RealDir + "/" + p.Base() }

// step tells Options.Step of a step that was done.
func (s *Store) step(name string) error { return s.opts.Step(name) }

// nameIn gives the name of a path directly within the store directory, if it is written the usual way.
func (h *handle) nameIn(realPath string) (name string, ok bool) {
	dir := h.root.Path()
	if len(realPath) <= len(dir)+1 || realPath[:len(dir)] != dir || realPath[len(dir)] != '/' {
		return "", false
	}
	name = realPath[len(dir)+1:]
	return name, name != "." && name != ".." && strings.IndexByte(name, '/') < 0
}

// split gives the open directory and the name within it of a path on disk, which is the store's own or another.
func (h *handle) split(realPath string) (dir *fstree.Dir, name string, closeDir func(), err error) {
	if name, ok := h.nameIn(realPath); ok {
		return h.root, name, func() {}, nil
	}
	parent, name := filepath.Split(filepath.Clean(realPath))
	if parent = filepath.Clean(parent); parent == h.root.Path() {
		return h.root, name, func() {}, nil
	}
	dir, err = fstree.OpenDir(parent)
	if err != nil {
		return nil, "", nil, err
	}
	return dir, name, func() { dir.Close() }, nil
}
