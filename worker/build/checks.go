package build

import (
	"context"
	"maps"
	"slices"
	"strings"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// outputChecker checks what a build made against what its derivation allows (libstore/build/derivation-check.cc).
type outputChecker struct {
	dir     storepath.Dir
	drvPath storepath.Path
	drv     *derivation.BasicDerivation
	options *derivation.Options
	outputs map[string]*pathinfo.Info
	// resolve finds the path that a reference to an output means.
	resolve func(*derivation.SingleDerivedPath) (storepath.Path, error)
	// info gives the metadata of paths that are not outputs of this build.
	info func(context.Context, storepath.Path) (*pathinfo.Info, error)
}

func (c *outputChecker) check(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(c.outputs)) {
		info := c.outputs[name]
		if err := c.checkFixed(c.drv.Outputs[name], info); err != nil {
			return err
		}
		checks := c.options.Checks(name)
		if err := c.apply(ctx, name, info, &checks); err != nil {
			return err
		}
	}
	return nil
}

func (c *outputChecker) checkFixed(o derivation.Output, info *pathinfo.Info) error {
	if o.Kind != derivation.FixedCA {
		return nil
	}
	wanted, got := o.CA.Hash, info.CA.Hash
	if wanted != got {
		f := failuref(derivation.StatusOutputRejected, "hash mismatch in fixed-output derivation '%s':\n  specified: %s\n     got:    %s",
			c.dir.Print(c.drvPath), wanted.SRI(), got.SRI())
		f.HashMismatch = true
		return f
	}
	if len(info.References) > 0 {
		f := failuref(derivation.StatusOutputRejected, "fixed-output derivations must not reference store paths: '%s' references %s distinct paths, e.g. '%s'",
			c.dir.Print(c.drvPath), len(info.References), c.dir.Print(info.References[0]))
		f.HashMismatch = true
		return f
	}
	return nil
}

func (c *outputChecker) apply(ctx context.Context, name string, info *pathinfo.Info, checks *derivation.OutputChecks) error {
	if checks.MaxSize != nil && info.NarSize > *checks.MaxSize {
		return failuref(derivation.StatusOutputRejected, "path '%s' is too large at %s bytes; limit is %s bytes",
			c.dir.Print(info.Path), info.NarSize, *checks.MaxSize)
	}
	if checks.MaxClosureSize != nil {
		_, size, err := c.closure(ctx, info.Path)
		if err != nil {
			return err
		}
		if size > *checks.MaxClosureSize {
			return failuref(derivation.StatusOutputRejected, "closure of path '%s' is too large at %s bytes; limit is %s bytes",
				c.dir.Print(info.Path), size, *checks.MaxClosureSize)
		}
	}
	// An empty list of what is allowed is a check; an empty list of what is not is none.
	for _, rule := range []refRule{
		{checks.AllowedReferences, checks.AllowedReferences != nil, true, false},
		{checks.AllowedRequisites, checks.AllowedRequisites != nil, true, true},
		{checks.DisallowedReferences, len(checks.DisallowedReferences) > 0, false, false},
		{checks.DisallowedRequisites, len(checks.DisallowedRequisites) > 0, false, true},
	} {
		if !rule.on {
			continue
		}
		if err := c.checkRefs(ctx, name, info, rule, checks.IgnoreSelfRefs); err != nil {
			return err
		}
	}
	return nil
}

// refRule says which paths an output may, or may not, refer to.
type refRule struct {
	refs      []derivation.Ref
	on        bool
	allowed   bool
	recursive bool
}

func (c *outputChecker) checkRefs(ctx context.Context, name string, info *pathinfo.Info, rule refRule, ignoreSelf bool) error {
	listed, err := c.listed(name, rule.refs)
	if err != nil {
		return err
	}
	used := info.References
	if rule.recursive {
		if used, _, err = c.closure(ctx, info.Path); err != nil {
			return err
		}
	}
	var bad strings.Builder
	for _, p := range used {
		if rule.recursive && ignoreSelf && p == info.Path {
			continue
		}
		if storepath.Contains(listed, p) != rule.allowed {
			bad.WriteString("\n  " + c.dir.Print(p))
		}
	}
	if bad.Len() == 0 {
		return nil
	}
	return failuref(derivation.StatusOutputRejected, "output '%s' is not allowed to refer to the following paths:%s",
		c.dir.Print(info.Path), bad.String())
}

// listed turns the paths and output names of a rule into a sorted set of paths.
func (c *outputChecker) listed(name string, refs []derivation.Ref) ([]storepath.Path, error) {
	paths := make([]storepath.Path, 0, len(refs))
	for _, ref := range refs {
		if ref.Output == "" {
			p, err := c.resolve(&ref.Path)
			if err != nil {
				return nil, err
			}
			paths = append(paths, p)
			continue
		}
		info, ok := c.outputs[ref.Output]
		if !ok {
			return nil, failuref(derivation.StatusOutputRejected, "derivation '%s' output check for '%s' contains output name '%s',"+
				" but this is not a valid output of this derivation. (Valid outputs are [%s].)",
				c.dir.Print(c.drvPath), name, ref.Output, strings.Join(slices.Sorted(maps.Keys(c.outputs)), ", "))
		}
		paths = append(paths, info.Path)
	}
	return storepath.SortUnique(paths), nil
}

// closure is a sorted set of what a path needs, and the sum of the NAR sizes. Outputs of this build need not be valid.
func (c *outputChecker) closure(ctx context.Context, start storepath.Path) (paths []storepath.Path, size uint64, err error) {
	own := make(map[storepath.Path]*pathinfo.Info, len(c.outputs))
	for _, info := range c.outputs {
		own[info.Path] = info
	}
	seen := map[storepath.Path]struct{}{start: {}}
	for queue := []storepath.Path{start}; len(queue) > 0; {
		p := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		info := own[p]
		if info == nil {
			if info, err = c.info(ctx, p); err != nil {
				return nil, 0, err
			}
		}
		size += info.NarSize
		for _, ref := range info.References {
			if _, again := seen[ref]; !again {
				seen[ref] = struct{}{}
				queue = append(queue, ref)
			}
		}
	}
	return storepath.SortUnique(slices.Collect(maps.Keys(seen))), size, nil
}
