package substitute

import (
	"context"
	"io"
	"time"

	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/storepath"
)

// Has tells whether there is a narinfo under a path's hash part, be it about a path of another name
// (libstore/binary-cache-store.cc, isValidPathUncached).
func (c *Cache) Has(ctx context.Context, a Asker, p storepath.Path) (bool, error) {
	if !c.o.Local {
		if info, known := c.o.Infos.Info(c.o.URI, p.HashPart(), ttls(a.Settings)); known {
			return info != nil, nil
		}
	}
	has, err := c.Exists(ctx, a, p.HashPart()+narinfoSuffix)
	if err == nil && !has && !c.o.Local {
		c.o.Infos.SetInfo(c.o.URI, p.HashPart(), nil)
	}
	return has, err
}

// Exists tells whether the cache has an object.
func (c *Cache) Exists(ctx context.Context, a Asker, name string) (bool, error) {
	if err := c.health.check(c.o.URI); err != nil {
		return false, err
	}
	began := time.Now()
	has, err := c.o.Objects.Exists(ctx, a, name)
	if err != nil {
		return false, c.failed(ctx, a, began, err)
	}
	return has, nil
}

// Get opens an object. The error wraps [ErrNoObject] when there is none.
func (c *Cache) Get(ctx context.Context, a Asker, name string) (io.ReadCloser, error) {
	return c.get(ctx, a, name)
}

// Put makes or replaces an object.
func (c *Cache) Put(ctx context.Context, a Asker, name string, o Object) error {
	return c.o.Objects.Put(ctx, a, name, o)
}

// PutInfo makes or replaces a narinfo. encode, if not nil, has the last word about how it is uploaded.
func (c *Cache) PutInfo(ctx context.Context, a Asker, info *narinfo.NarInfo, encode func(Object) (Object, error)) error {
	o := Text(info.Format(c.dir), "text/x-nix-narinfo")
	if encode != nil {
		var err error
		if o, err = encode(o); err != nil {
			return err
		}
	}
	if err := c.o.Objects.Put(ctx, a, info.Path.HashPart()+narinfoSuffix, o); err != nil {
		return err
	}
	if !c.o.Local {
		kept := *info // as if it had been read
		kept.RegistrationTime, kept.Ultimate = 0, false
		c.o.Infos.SetInfo(c.o.URI, info.Path.HashPart(), &kept)
	}
	return nil
}
