package substitute

import (
	"context"
	"errors"
	"io"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/compression"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/substitute/narinfocache"
)

const (
	cacheInfoName = "nix-cache-info"
	narinfoSuffix = ".narinfo"

	// maxText bounds what is read into memory of a narinfo, nix-cache-info or realisation.
	maxText = 16 << 20
)

// CacheOptions say what a binary cache is made of.
type CacheOptions struct {
	// Reference is as configured, with its parameters.
	Reference settings.StoreReference
	// URI names the cache in messages and in the cache of narinfos; it has neither parameters nor passwords.
	URI string
	// Dir is the daemon's store directory, unless the reference says another.
	Dir storepath.Dir
	// Objects are the cache's files.
	Objects Objects
	// Infos remembers narinfos. It may be nil for a directory, which is as fast to read anew.
	Infos *narinfocache.Cache
	// Decoders decompress archives.
	Decoders *compression.Decoders
	// IDs numbers activities.
	IDs *activity.IDs
	// Local says that the cache is a directory of this machine: it is never set aside, and messages about missing objects
	// leave out its name, as upstream's do.
	Local bool
}

// Cache is a binary cache.
type Cache struct {
	o        CacheOptions
	params   params
	dir      storepath.Dir
	priority int
	wantMass bool
	// generation is that of Infos when the cache was opened.
	generation uint64

	health  health
	lookups flights[string, *narinfo.NarInfo]
}

var _ Source = (*Cache)(nil)

// OpenCache finds out what a binary cache says of itself. One that says nothing is told whose it is, which fails when it
// cannot be written.
func OpenCache(ctx context.Context, a Asker, o CacheOptions) (*Cache, error) {
	p, err := parseParams(o.Reference, a.Log)
	if err != nil {
		return nil, err
	}
	c := &Cache{o: o, params: p, dir: o.Dir}
	if p.storeDir != "" {
		c.dir = p.storeDir
	}
	if !o.Local {
		c.generation = o.Infos.Generation()
	}
	if err := c.learn(ctx, a); err != nil {
		return nil, err
	}
	if p.priority != nil {
		c.priority = *p.priority
	}
	if p.wantMassQuery != nil {
		c.wantMass = *p.wantMassQuery
	}
	return c, nil
}

// learn reads nix-cache-info, or what is remembered of it.
func (c *Cache) learn(ctx context.Context, a Asker) error {
	if !c.o.Local {
		if known, ok := c.o.Infos.Store(c.o.URI, a.Settings.NarinfoCacheMetaTTL); ok {
			c.priority, c.wantMass = known.Priority, known.WantMassQuery
			return nil
		}
	}
	text, err := c.text(ctx, a, cacheInfoName)
	switch {
	case errors.Is(err, ErrNoObject):
		err = c.introduce(ctx, a)
	case err == nil:
		err = c.believe(text)
	}
	if err == nil && !c.o.Local {
		c.o.Infos.SetStore(c.o.URI, narinfocache.Store{Dir: c.dir, WantMassQuery: c.wantMass, Priority: c.priority})
	}
	return err
}

// believe takes in the text of nix-cache-info.
func (c *Cache) believe(text string) error {
	info, err := narinfo.ParseCacheInfo(text)
	if err != nil {
		return err
	}
	if info.StoreDir != "" && info.StoreDir != c.dir {
		return errorf(nil, "binary cache '%s' is for Nix stores with prefix '%s', not '%s'", c.o.URI, string(info.StoreDir), string(c.dir))
	}
	if info.Priority != nil {
		c.priority = *info.Priority
	}
	if info.WantMassQuery != nil {
		c.wantMass = *info.WantMassQuery
	}
	return nil
}

func (c *Cache) introduce(ctx context.Context, a Asker) error {
	text := narinfo.CacheInfo{StoreDir: c.dir}.String()
	err := c.o.Objects.Put(ctx, a, cacheInfoName, Text(text, "text/x-nix-cache-info"))
	if err != nil && !c.o.Local {
		return errorf(err, "'%s' does not appear to be a binary cache", c.o.URI)
	}
	return err
}

// text reads a small object whole. It fails at once when another question finds out that the cache does not answer.
func (c *Cache) text(ctx context.Context, a Asker, name string) (string, error) {
	ctx, done := c.health.watch(ctx)
	defer done()
	body, err := c.get(ctx, a, name)
	if err != nil {
		return "", err
	}
	defer body.Close()
	began := time.Now()
	data, err := io.ReadAll(io.LimitReader(body, maxText+1))
	if err != nil {
		return "", c.failed(ctx, a, began, err)
	}
	if len(data) > maxText {
		return "", errorf(nil, "file '%s' in binary cache '%s' is too large", name, c.o.URI)
	}
	return string(data), nil
}

// get opens an object unless the cache is set aside.
func (c *Cache) get(ctx context.Context, a Asker, name string) (io.ReadCloser, error) {
	if err := c.health.check(c.o.URI); err != nil {
		return nil, err
	}
	began := time.Now()
	body, err := c.o.Objects.Get(ctx, a, name)
	switch {
	case err == nil:
		return body, nil
	case !errors.Is(err, ErrNoObject):
		return nil, c.failed(ctx, a, began, err)
	case c.o.Local:
		return nil, errorf(err, "file '%s' does not exist in binary cache", name)
	}
	return nil, errorf(err, "file '%s' does not exist in binary cache '%s'", name, c.o.URI)
}

// failed takes note of a failure of the cache's and gives it back.
func (c *Cache) failed(ctx context.Context, a Asker, began time.Time, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.o.Local {
		return err
	}
	return c.health.note(a, c.o.URI, time.Since(began), err)
}

// URI names the cache in messages.
func (c *Cache) URI() string { return c.o.URI }

// Objects are the cache's files.
func (c *Cache) Objects() Objects { return c.o.Objects }

// Dir is the store directory of its paths.
func (c *Cache) Dir() storepath.Dir { return c.dir }

// Priority is the parameter, or what the cache says itself, or 0.
func (c *Cache) Priority() int { return c.priority }

// WantMassQuery is the parameter, or what the cache says itself.
func (c *Cache) WantMassQuery() bool { return c.wantMass }

// Trusted is the parameter.
func (c *Cache) Trusted() bool { return c.params.trusted }

// Stale tells whether what was remembered of the cache has been thrown away, so that it must be asked anew.
func (c *Cache) Stale() bool { return !c.o.Local && c.generation != c.o.Infos.Generation() }

// Close waits for questions whose askers have gone.
func (c *Cache) Close() error {
	c.lookups.close()
	return nil
}

// PathInfo reads a path's narinfo. That may be about another path than its name says.
func (c *Cache) PathInfo(ctx context.Context, a Asker, p storepath.Path) (*narinfo.NarInfo, error) {
	return c.lookup(ctx, a, p)
}

// Known gives what is at hand: what is remembered, or can be read without a network. An answer that is an error is left to
// PathInfo.
func (c *Cache) Known(ctx context.Context, a Asker, p storepath.Path) (*narinfo.NarInfo, bool) {
	if !c.o.Local {
		return c.o.Infos.Info(c.o.URI, p.HashPart(), ttls(a.Settings))
	}
	ok, err := c.o.Objects.Exists(ctx, a, p.HashPart()+narinfoSuffix)
	if err != nil || !ok {
		return nil, true
	}
	return &narinfo.NarInfo{}, true
}

func (c *Cache) lookup(ctx context.Context, a Asker, p storepath.Path) (*narinfo.NarInfo, error) {
	if c.o.Local {
		return c.readInfo(ctx, a, p)
	}
	if info, known := c.o.Infos.Info(c.o.URI, p.HashPart(), ttls(a.Settings)); known {
		return info, nil
	}
	return c.lookups.do(ctx, p.Base(), a.Log, func(ctx context.Context, log activity.Sink) (*narinfo.NarInfo, error) {
		info, err := c.readInfo(ctx, Asker{Settings: a.Settings, Log: log, Parent: a.Parent}, p)
		if err == nil {
			c.o.Infos.SetInfo(c.o.URI, p.HashPart(), info)
		}
		return info, err
	})
}

func ttls(s *settings.Settings) narinfocache.TTLs {
	return narinfocache.TTLs{Positive: s.NarinfoCachePositiveTTL, Negative: s.NarinfoCacheNegativeTTL}
}

// readInfo asks the cache itself; nil if it has no narinfo.
func (c *Cache) readInfo(ctx context.Context, a Asker, p storepath.Path) (*narinfo.NarInfo, error) {
	printed := c.dir.Print(p)
	id := c.o.IDs.Next()
	a.Log.Start(id, activity.Talkative, activity.QueryPathInfo, "querying info about '"+printed+"' on '"+c.o.URI+"'",
		[]activity.Field{activity.Text(printed), activity.Text(c.o.URI)}, a.Parent)
	defer a.Log.Stop(id)
	name := p.HashPart() + narinfoSuffix
	text, err := c.text(ctx, a.under(id), name)
	if errors.Is(err, ErrNoObject) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return narinfo.Parse(c.dir, text, name)
}

// decompressed is an archive and what it is read from.
type decompressed struct {
	io.ReadCloser
	body io.Closer
}

// Close closes both.
func (d decompressed) Close() error { return errors.Join(d.ReadCloser.Close(), d.body.Close()) }

// OpenNAR opens and decompresses the archive that a narinfo names.
func (c *Cache) OpenNAR(ctx context.Context, a Asker, info *narinfo.NarInfo) (io.ReadCloser, error) {
	file, err := c.open(ctx, a, info)
	if err != nil {
		return nil, err
	}
	return c.Unpack(ctx, a, info, file)
}

// open opens the file of an archive.
func (c *Cache) open(ctx context.Context, a Asker, info *narinfo.NarInfo) (io.ReadCloser, error) {
	file, err := c.get(ctx, a, info.URL)
	if errors.Is(err, ErrNoObject) {
		return nil, &Error{err.Error(), coloured(err), ErrGone}
	}
	return file, err
}

// File reads the file of an archive whole, nil if it is larger than limit.
func (c *Cache) File(ctx context.Context, a Asker, info *narinfo.NarInfo, limit uint64) ([]byte, error) {
	file, err := c.open(ctx, a, info)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	// The byte behind the limit makes room for the end to be seen.
	data := make([]byte, limit+1)
	n, err := io.ReadFull(file, data)
	switch {
	case err == nil:
		return nil, nil
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return data[:n], nil
	}
	return nil, err
}

// Unpack decompresses an archive.
func (c *Cache) Unpack(ctx context.Context, a Asker, info *narinfo.NarInfo, file io.ReadCloser) (io.ReadCloser, error) {
	contents, err := c.o.Decoders.NewReader(info.Compression, file)
	if err != nil {
		file.Close()
		return nil, c.failed(ctx, a, time.Now(), err)
	}
	return decompressed{contents, file}, nil
}
