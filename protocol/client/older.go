package client

import (
	"context"
	"fmt"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// What this file does, newer daemons do by themselves. Each function takes the
// error of finding out which kind this is, so that callers need not.

// staticOutputs gives the outputs that stand in the derivation.
func (c *Client) staticOutputs(ctx context.Context, p storepath.Path, err error) (map[string]storepath.Path, error) {
	if err != nil {
		return nil, err
	}
	drv, err := c.ReadDerivation(ctx, p)
	if err != nil {
		return nil, err
	}
	return drv.OutputPaths(c.o.Dir)
}

// buildThenAsk builds without results and makes them up afterwards.
func (c *Client) buildThenAsk(ctx context.Context, paths []derivation.DerivedPath, mode derivation.BuildMode, err error) ([]derivation.KeyedBuildResult, error) {
	if err != nil {
		return nil, err
	}
	if err := c.BuildPaths(ctx, paths, mode); err != nil {
		return nil, err
	}
	results := make([]derivation.KeyedBuildResult, len(paths))
	for i, p := range paths {
		results[i].Path = p
		results[i].Status = derivation.StatusSubstituted
		if p.Drv == nil {
			continue
		}
		results[i].Status = derivation.StatusBuilt
		if results[i].BuiltOutputs, err = c.builtOutputs(ctx, p); err != nil {
			return nil, err
		}
	}
	return results, nil
}

func (c *Client) builtOutputs(ctx context.Context, p derivation.DerivedPath) (map[string]pathinfo.Realisation, error) {
	drv := p.Drv.Path
	outputs, err := c.OutputMap(ctx, drv)
	if err != nil {
		return nil, err
	}
	for _, name := range p.Outputs.Names {
		if _, known := outputs[name]; !known {
			return nil, fmt.Errorf("the derivation '%s' doesn't have an output named '%s'", c.o.Dir.Print(drv), name)
		}
	}
	built := make(map[string]pathinfo.Realisation)
	for name, path := range outputs {
		if p.Outputs.Contains(name) && !path.IsZero() {
			built[name] = pathinfo.Realisation{ID: pathinfo.DrvOutput{DrvPath: drv, Output: name}, OutPath: path}
		}
	}
	return built, nil
}

// findMissing walks from the paths to what they need. It asks about each path
// once, one after the other: only daemons of 2018 are served so.
func (c *Client) findMissing(ctx context.Context, paths []derivation.DerivedPath, err error) (protocol.Missing, error) {
	if err != nil {
		return protocol.Missing{}, err
	}
	m := missing{c: c, seen: make(map[storepath.Path]bool)}
	for _, p := range paths {
		if p.Drv != nil {
			err = m.derivation(ctx, p.Drv.Path, p.Outputs)
		} else {
			err = m.path(ctx, p.Path)
		}
		if err != nil {
			return protocol.Missing{}, err
		}
	}
	for _, set := range []*[]storepath.Path{&m.WillBuild, &m.WillSubstitute, &m.Unknown} {
		*set = storepath.SortUnique(*set)
	}
	return m.Missing, nil
}

// missing is one walk.
type missing struct {
	c    *Client
	seen map[storepath.Path]bool
	protocol.Missing
}

func (m *missing) path(ctx context.Context, p storepath.Path) error {
	if m.seen[p] {
		return nil
	}
	m.seen[p] = true
	valid, err := m.c.IsValid(ctx, p)
	if err != nil || valid {
		return err
	}
	found, err := m.substitute(ctx, p)
	if err == nil && !found {
		m.Unknown = append(m.Unknown, p)
	}
	return err
}

// substitute counts a path in if it can be substituted, with what it refers to.
func (m *missing) substitute(ctx context.Context, p storepath.Path) (bool, error) {
	infos, err := m.c.SubstitutableInfos(ctx, map[storepath.Path]storepath.ContentAddress{p: {}})
	if err != nil || len(infos) == 0 {
		return false, err
	}
	m.WillSubstitute = append(m.WillSubstitute, p)
	m.DownloadSize += infos[0].DownloadSize
	m.NarSize += infos[0].NarSize
	for _, ref := range infos[0].References {
		if err := m.path(ctx, ref); err != nil {
			return true, err
		}
	}
	return true, nil
}

func (m *missing) derivation(ctx context.Context, p storepath.Path, wanted derivation.OutputsSpec) error {
	valid, err := m.c.IsValid(ctx, p)
	if err != nil {
		return err
	}
	if !valid {
		m.Unknown = append(m.Unknown, p)
		return nil
	}
	drv, err := m.c.ReadDerivation(ctx, p)
	if err != nil {
		return err
	}
	build, err := m.mustBuild(ctx, drv, wanted)
	if err != nil || !build || m.seen[p] {
		return err
	}
	m.seen[p] = true
	m.WillBuild = append(m.WillBuild, p)
	return m.inputs(ctx, drv)
}

// mustBuild tells whether a wanted output is neither there nor to be had.
func (m *missing) mustBuild(ctx context.Context, drv *derivation.Derivation, wanted derivation.OutputsSpec) (bool, error) {
	outputs, err := drv.OutputPaths(m.c.o.Dir)
	if err != nil {
		return false, err
	}
	for name, path := range outputs {
		if !wanted.Contains(name) || m.seen[path] {
			continue
		}
		if path.IsZero() {
			return true, nil
		}
		m.seen[path] = true // may refer to itself
		valid, err := m.c.IsValid(ctx, path)
		if err != nil {
			return false, err
		}
		if !valid {
			found, err := m.substitute(ctx, path)
			if err != nil || !found {
				return true, err
			}
		}
	}
	return false, nil
}

func (m *missing) inputs(ctx context.Context, drv *derivation.Derivation) error {
	for _, src := range drv.InputSrcs {
		if err := m.path(ctx, src); err != nil {
			return err
		}
	}
	for p, in := range drv.InputDrvs {
		if err := m.derivation(ctx, p, derivation.OutputsSpec{Names: in.Outputs}); err != nil {
			return err
		}
	}
	return nil
}
