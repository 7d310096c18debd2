package worker

import (
	"context"
	"strings"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// Refusals, in upstream's words (daemon.cc, performOp).
const (
	refuseRepair refusal = "repairing is not allowed because you are not in 'trusted-users'"
	refuseBuild  refusal = "you are not privileged to build input-addressed derivations"
)

// buildRequest reads what to build and how. Repair is not atomic, so only
// trusted clients may ask for it.
func (c *conn) buildRequest() ([]derivation.DerivedPath, derivation.BuildMode, error) {
	paths, err := c.in.DerivedPaths()
	if err != nil {
		return nil, 0, err
	}
	mode, err := c.in.BuildMode()
	if err == nil && mode == derivation.BuildRepair && !c.o.Trusted {
		err = c.audited(ActionRepair, c.derived(paths), func() error { return refuseRepair })
	}
	return paths, mode, err
}

func (c *conn) buildPaths(ctx context.Context) error {
	paths, mode, err := c.buildRequest()
	if err != nil {
		return err
	}
	return c.work(func() error {
		return c.repairing(mode, c.derived(paths), func() error { return c.o.Builder.BuildPaths(ctx, c.sess, paths, mode) })
	}, c.one)
}

func (c *conn) buildPathsWithResults(ctx context.Context) error {
	paths, mode, err := c.buildRequest()
	if err != nil {
		return err
	}
	var results []derivation.KeyedBuildResult
	return c.work(func() error {
		return c.repairing(mode, c.derived(paths), func() (err error) {
			results, err = c.o.Builder.BuildPathsWithResults(ctx, c.sess, paths, mode)
			return err
		})
	}, func() { c.out.KeyedBuildResults(results) })
}

// repairing is audited for builds that make anew what is there; others are
// nothing special.
func (c *conn) repairing(mode derivation.BuildMode, about func(*Privilege), build func() error) error {
	if mode != derivation.BuildRepair {
		return build()
	}
	return c.audited(ActionRepair, about, build)
}

// derived has a deed be about what is to be built.
func (c *conn) derived(list []derivation.DerivedPath) func(*Privilege) {
	return func(p *Privilege) {
		for i := range list[:min(len(list), maxSubjects)] {
			p.Subject = append(p.Subject, list[i].Format(c.o.Store.Dir(), "^"))
		}
		p.Details = map[string]uint64{"paths": uint64(len(list))}
	}
}

func (c *conn) buildDerivation(ctx context.Context) error {
	req, err := c.in.BuildDerivation()
	if err != nil {
		return err
	}
	var result derivation.BuildResult
	return c.work(func() (err error) {
		result, err = c.buildGiven(ctx, req)
		return err
	}, func() { c.out.BuildResult(result) })
}

// buildGiven builds a derivation that the client made up. The outputs of a
// content-addressing one are proved by their contents; what an untrusted
// client says of the path of its derivation is not believed, and the daemon
// writes the derivation to a path of its own reckoning. Upstream lets everybody
// repair here; what is repaired is gone for a moment, so we do as BuildPaths.
func (c *conn) buildGiven(ctx context.Context, req protocol.BuildDerivationRequest) (result derivation.BuildResult, err error) {
	kind, err := req.Derivation.Type()
	if err != nil {
		return derivation.BuildResult{}, err
	}
	if !c.o.Trusted {
		if err := c.mayBuild(kind, req); err != nil {
			return derivation.BuildResult{}, err
		}
		if req.DrvPath, err = c.writeDerivation(ctx, req.Derivation); err != nil {
			return derivation.BuildResult{}, err
		}
	}
	build := func() error {
		result, err = c.o.Builder.BuildDerivation(ctx, c.sess, req.DrvPath, req.Derivation, req.Mode)
		return err
	}
	switch {
	case req.Mode == derivation.BuildRepair:
		err = c.audited(ActionRepair, c.paths(req.DrvPath), build)
	case c.o.Trusted && !kind.IsCA:
		err = c.audited(ActionBuild, c.paths(req.DrvPath), build)
	default:
		err = build()
	}
	return result, err
}

// mayBuild refuses what only trusted clients may have built.
func (c *conn) mayBuild(kind derivation.Type, req protocol.BuildDerivationRequest) error {
	switch {
	case !kind.IsCA:
		return c.audited(ActionBuild, c.paths(req.DrvPath), func() error { return refuseBuild })
	case req.Mode == derivation.BuildRepair:
		return c.audited(ActionRepair, c.paths(req.DrvPath), func() error { return refuseRepair })
	}
	return nil
}

func (c *conn) writeDerivation(ctx context.Context, basic *derivation.BasicDerivation) (storepath.Path, error) {
	drv := derivation.Derivation{BasicDerivation: *basic}
	text, err := drv.ATerm(c.o.Store.Dir())
	if err != nil {
		return storepath.Path{}, err
	}
	info, err := c.o.Store.AddDump(ctx, localstore.DumpSpec{
		Name: basic.Name + storepath.DrvExtension, Method: storepath.MethodText, Algo: nixhash.SHA256,
		References: basic.InputSrcs,
	}, strings.NewReader(text), c.addOptions())
	if err != nil {
		return storepath.Path{}, err
	}
	return info.Path, nil
}

func (c *conn) ensurePath(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) (struct{}, error) {
		return struct{}{}, c.o.Builder.EnsurePath(ctx, c.sess, p)
	}, func(struct{}) { c.one() })
}

func (c *conn) queryMissing(ctx context.Context) error {
	paths, err := c.in.DerivedPaths()
	if err != nil {
		return err
	}
	var missing protocol.Missing
	return c.work(func() (err error) {
		missing, err = c.o.Builder.QueryMissing(ctx, c.sess, paths)
		return err
	}, func() { c.out.Missing(missing) })
}
