package localstore

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

const (
	// drvCacheBytes is how much text the remembered derivations may have had, all together.
	drvCacheBytes = 16 << 20

	// memoSize is how many hashes modulo are remembered.
	memoSize = 20000

	// maxDrvSize is the size of the largest derivation that is read: it is held in memory.
	maxDrvSize = 256 << 20
)

// drvCache remembers parsed derivations, up to drvCacheBytes of text, in two generations as [cacheShard] does.
type drvCache struct {
	mu         sync.Mutex
	young, old map[storepath.Path]cachedDrv
	bytes      int // of young
}

type cachedDrv struct {
	drv  *derivation.Derivation
	size int
}

func newDrvCache() *drvCache { return &drvCache{young: make(map[storepath.Path]cachedDrv)} }

func (c *drvCache) get(p storepath.Path) *derivation.Derivation {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.young[p]; ok {
		return e.drv
	}
	e, ok := c.old[p]
	if ok {
		c.insert(p, e)
	}
	return e.drv
}

func (c *drvCache) put(p storepath.Path, drv *derivation.Derivation, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.insert(p, cachedDrv{drv, size})
}

func (c *drvCache) insert(p storepath.Path, e cachedDrv) {
	if c.bytes+e.size > drvCacheBytes/2 {
		c.old, c.young, c.bytes = c.young, make(map[storepath.Path]cachedDrv), 0
	}
	c.young[p] = e
	c.bytes += e.size
}

func (c *drvCache) drop(p storepath.Path) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, p)
	delete(c.old, p)
}

func (c *drvCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.young, c.old, c.bytes = make(map[storepath.Path]cachedDrv), nil, 0
}

// ReadDerivation gives the derivation that a path is, or a [NotValidError]: builders write to the store's directory, so
// that what is there counts for nothing before it is valid. The Derivation is shared: do not modify it.
func (s *Store) ReadDerivation(ctx context.Context, p storepath.Path) (*derivation.Derivation, error) {
	if err := p.RequireDerivation(); err != nil {
		return nil, err
	}
	h := s.acquire()
	defer h.release()
	valid, err := s.isValid(ctx, h, p)
	if err != nil {
		return nil, err
	}
	if !valid {
		return nil, s.notValid(p)
	}
	if drv := s.drvs.get(p); drv != nil {
		return drv, nil
	}
	drv, size, err := s.loadDerivation(h, p)
	if err == nil {
		s.drvs.put(p, drv, size)
	}
	return drv, err
}

func (s *Store) loadDerivation(h *handle, p storepath.Path) (*derivation.Derivation, int, error) {
	text, err := h.root.ReadFile(p.Base(), maxDrvSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, s.notValid(p)
	}
	if err != nil {
		return nil, 0, err
	}
	drv, err := derivation.ParseFile(s.opts.StoreDir, p, text, s.opts.Features)
	return drv, len(text), err
}

// checkDerivation gives the known output paths, by output name, of a derivation whose file is in place, unless it is
// not what its outputs say. drv is nil to have it read. Inputs are valid, or registered with it: their files were checked.
func (s *Store) checkDerivation(ctx context.Context, h *handle, p storepath.Path, drv *derivation.Derivation, with []*pathinfo.Info) (map[string]string, error) {
	if drv == nil {
		var err error
		if drv, _, err = s.loadDerivation(h, p); err != nil {
			return nil, err
		}
	}
	load := func(ctx context.Context, input storepath.Path) (*derivation.Derivation, error) {
		drv, err := s.ReadDerivation(ctx, input)
		var invalid *NotValidError
		if errors.As(err, &invalid) && slices.ContainsFunc(with, func(i *pathinfo.Info) bool { return i.Path == input }) {
			drv, _, err = s.loadDerivation(h, input)
		}
		return drv, err
	}
	hasher := derivation.Hasher{Dir: s.opts.StoreDir, Load: load, Memo: s.memo}
	warnings, err := hasher.CheckInvariants(ctx, drv, p)
	if err != nil {
		return nil, err
	}
	for _, text := range warnings {
		s.opts.Log(activity.Warn, text)
	}
	return s.knownOutputs(drv)
}

// knownOutputs gives the output paths that are known without building, by output name.
func (s *Store) knownOutputs(drv *derivation.Derivation) (map[string]string, error) {
	paths, err := drv.OutputPaths(s.opts.StoreDir)
	if err != nil {
		return nil, err
	}
	known := make(map[string]string, len(paths))
	for name, path := range paths {
		if !path.IsZero() {
			known[name] = s.opts.StoreDir.Print(path)
		}
	}
	return known, nil
}

// parseDerivation reads a derivation from the text that is about to become its file.
func (s *Store) parseDerivation(p storepath.Path, pieces [][]byte) (*derivation.Derivation, error) {
	var text strings.Builder
	for _, piece := range pieces {
		text.Write(piece)
	}
	return derivation.ParseFile(s.opts.StoreDir, p, text.String(), s.opts.Features)
}
