package worker

import (
	"context"
	"errors"
	"maps"
	"slices"

	"nixdaemon/localstore"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// aboutPath answers a request that names one path.
func aboutPath[T any](c *conn, ask func(storepath.Path) (T, error), reply func(T)) error {
	p, err := c.in.StorePath()
	if err != nil {
		return err
	}
	var answer T
	return c.work(func() (err error) {
		answer, err = ask(p)
		return err
	}, func() { reply(answer) })
}

func (c *conn) isValidPath(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) (bool, error) { return c.o.Store.IsValid(ctx, p) },
		func(valid bool) { c.out.Bool(valid) })
}

func (c *conn) queryPathInfo(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) (*pathinfo.Info, error) {
		info, err := c.o.Store.PathInfo(ctx, p)
		if err != nil && isNotValid(err) {
			return nil, nil
		}
		return info, err
	}, func(info *pathinfo.Info) {
		c.out.Bool(info != nil)
		if info != nil {
			c.out.InfoOf(info)
		}
	})
}

func isNotValid(err error) bool {
	var invalid *localstore.NotValidError
	return errors.As(err, &invalid)
}

func (c *conn) queryReferrers(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) ([]storepath.Path, error) { return c.o.Store.Referrers(ctx, p) }, c.out.StorePaths)
}

func (c *conn) queryValidDerivers(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) ([]storepath.Path, error) { return c.o.Store.ValidDerivers(ctx, p) }, c.out.StorePaths)
}

func (c *conn) queryDeriver(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) (storepath.Path, error) {
		info, err := c.o.Store.PathInfo(ctx, p)
		if err != nil {
			return storepath.Path{}, err
		}
		return info.Deriver, nil
	}, c.out.StorePath)
}

// queryDerivationOutputs gives the outputs that are known, as a set.
func (c *conn) queryDerivationOutputs(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) ([]storepath.Path, error) {
		outputs, err := c.o.Builder.OutputMap(ctx, p)
		delete(outputs, "") // never a name
		known := slices.DeleteFunc(slices.Collect(maps.Values(outputs)), storepath.Path.IsZero)
		return storepath.SortUnique(known), err
	}, c.out.StorePaths)
}

func (c *conn) queryDerivationOutputNames(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) ([]string, error) {
		drv, err := c.o.Store.ReadDerivation(ctx, p)
		if err != nil {
			return nil, err
		}
		return slices.Sorted(maps.Keys(drv.Outputs)), nil
	}, func(names []string) { c.out.Strings(names) })
}

func (c *conn) queryDerivationOutputMap(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) (map[string]storepath.Path, error) { return c.o.Builder.OutputMap(ctx, p) }, c.out.OutputMap)
}

func (c *conn) queryPathFromHashPart(ctx context.Context) error {
	part, err := c.in.Text()
	if err != nil {
		return err
	}
	var found storepath.Path
	return c.work(func() (err error) {
		found, err = c.o.Store.PathFromHashPart(ctx, part)
		return err
	}, func() { c.out.StorePath(found) })
}

func (c *conn) queryAllValidPaths(ctx context.Context) error {
	var paths []storepath.Path
	return c.work(func() (err error) {
		paths, err = c.o.Store.AllValidPaths(ctx)
		return err
	}, func() { c.out.StorePaths(paths) })
}

func (c *conn) queryValidPaths(ctx context.Context) error {
	paths, err := c.in.StorePaths()
	if err != nil {
		return err
	}
	substitute := false
	if c.in.Version.AtLeast(27) {
		if substitute, err = c.in.Bool(); err != nil {
			return err
		}
	}
	var valid []storepath.Path
	return c.work(func() (err error) {
		if substitute && c.forward != nil {
			valid, err = c.forward.SubstituteValidPaths(ctx, paths)
			return err
		}
		if substitute {
			if err := c.substituteQuietly(ctx, paths); err != nil {
				return err
			}
		}
		valid, err = c.o.Store.ValidPaths(ctx, paths)
		return err
	}, func() { c.out.StorePaths(valid) })
}

// substituteQuietly fetches what it can; what fails stays invalid, and the
// client is warned (store-api.cc, substitutePaths).
func (c *conn) substituteQuietly(ctx context.Context, paths []storepath.Path) error {
	var wanted []derivation.DerivedPath
	for _, p := range paths {
		if !p.IsDerivation() {
			wanted = append(wanted, derivation.DerivedPath{Path: p})
		}
	}
	missing, err := c.o.Builder.QueryMissing(ctx, c.sess, wanted)
	if err != nil || len(missing.WillSubstitute) == 0 {
		return err
	}
	wanted = wanted[:0]
	for _, p := range missing.WillSubstitute {
		wanted = append(wanted, derivation.DerivedPath{Path: p})
	}
	err = c.o.Builder.BuildPaths(ctx, c.sess, wanted, derivation.BuildNormal)
	if err != nil && ctx.Err() == nil {
		c.tunnel.warn(wireError(err).Message)
	}
	return nil
}
