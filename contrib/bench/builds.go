package main

import (
	"context"
	"fmt"
	"strings"

	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// trivial makes a derivation that a shell builds at once.
func trivial(b *bench, name string, input storepath.Path) (*derivation.Derivation, error) {
	dir := storepath.Dir(b.storeDir())
	d := &derivation.Derivation{BasicDerivation: derivation.BasicDerivation{
		Name: name, Platform: "x86_64-linux", Builder: "/bin/sh",
		Args:    []string{"-c", "echo " + name + " >$out"},
		Env:     map[string]string{"name": name, "out": "", "system": "x86_64-linux", "builder": "/bin/sh"},
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.Deferred}},
	}}
	load := func(context.Context, storepath.Path) (*derivation.Derivation, error) {
		return nil, fmt.Errorf("not kept")
	}
	if !input.IsZero() {
		d.InputDrvs = map[storepath.Path]*derivation.InputOutputs{input: {Outputs: []string{"out"}}}
		load = func(_ context.Context, p storepath.Path) (*derivation.Derivation, error) { return b.known(p) }
	}
	h := &derivation.Hasher{Dir: dir, Load: load, Memo: b.memo()}
	return d, h.FillOutputPaths(b.ctx, d)
}

// chainState are derivations that others refer to.
type chainState struct {
	drvs map[storepath.Path]*derivation.Derivation
	memo *derivation.Memo
	list []storepath.Path
}

func (b *bench) chain() *chainState {
	if b.state == nil {
		b.state = &chainState{drvs: make(map[storepath.Path]*derivation.Derivation), memo: derivation.NewMemo(10000)}
	}
	return b.state.(*chainState)
}

func (b *bench) memo() *derivation.Memo { return b.chain().memo }

func (b *bench) known(p storepath.Path) (*derivation.Derivation, error) {
	d := b.chain().drvs[p]
	if d == nil {
		return nil, fmt.Errorf("unknown derivation %s", p)
	}
	return d, nil
}

// addDerivation writes a derivation to the store.
func addDerivation(b *bench, c *client.Client, d *derivation.Derivation) (storepath.Path, error) {
	text, err := d.ATerm(storepath.Dir(b.storeDir()))
	if err != nil {
		return storepath.Path{}, err
	}
	info, err := c.AddToStore(b.ctx, protocol.AddToStoreRequest{
		Name: d.Name + ".drv", MethodAlgo: "text:sha256", References: d.References(),
	}, strings.NewReader(text))
	if err != nil {
		return storepath.Path{}, err
	}
	b.chain().drvs[info.Path] = d
	b.chain().list = append(b.chain().list, info.Path)
	return info.Path, nil
}

// derivations writes so many that depend on nothing.
func derivations(count int) func(*bench) error {
	return func(b *bench) error {
		c := b.pool(1, 1)
		defer c.Close()
		for i := range b.n(count) {
			d, err := trivial(b, fmt.Sprintf("trivial-%d", i), storepath.Path{})
			if err != nil {
				return err
			}
			if _, err := addDerivation(b, c, d); err != nil {
				return err
			}
		}
		return nil
	}
}

// chain writes derivations that each depend on the one before, and asks for
// the last.
func chain(length int) func(*bench) error {
	return func(b *bench) error {
		c := b.pool(1, 1)
		defer c.Close()
		var last storepath.Path
		for i := range b.n(length) {
			d, err := trivial(b, fmt.Sprintf("link-%d", i), last)
			if err != nil {
				return err
			}
			if last, err = addDerivation(b, c, d); err != nil {
				return err
			}
		}
		return nil
	}
}

// built writes derivations and builds them.
func built(count int) func(*bench) error {
	return func(b *bench) error {
		if err := derivations(count)(b); err != nil {
			return err
		}
		_, err := builds(8)(b)
		return err
	}
}

func requests(paths []storepath.Path) []derivation.DerivedPath {
	out := make([]derivation.DerivedPath, len(paths))
	for i, p := range paths {
		out[i] = derivation.DerivedPath{Drv: &derivation.SingleDerivedPath{Path: p}, Outputs: derivation.OutputsSpec{All: true}}
	}
	return out
}

// builds asks for everything in one request.
func builds(slots uint64) func(*bench) (float64, error) {
	return func(b *bench) (float64, error) {
		c := b.pool(1, slots)
		defer c.Close()
		list := b.chain().list
		return float64(len(list)), c.BuildPaths(b.ctx, requests(list), derivation.BuildNormal)
	}
}

// clientsBuild shares the work among clients that ask at the same time.
func clientsBuild(clients int) func(*bench) (float64, error) {
	return func(b *bench) (float64, error) {
		list := b.chain().list
		share := len(list) / clients
		err := parallel(clients, func(i int) error {
			c := b.pool(1, 2)
			defer c.Close()
			return c.BuildPaths(b.ctx, requests(list[i*share:(i+1)*share]), derivation.BuildNormal)
		})
		return float64(share * clients), err
	}
}

func missing(b *bench) (float64, error) {
	c := b.pool(1, 1)
	defer c.Close()
	m, err := c.QueryMissing(b.ctx, requests(b.chain().list))
	if err == nil && len(m.WillBuild) != len(b.chain().list) {
		err = fmt.Errorf("%d of %d derivations would be built", len(m.WillBuild), len(b.chain().list))
	}
	return float64(len(m.WillBuild)), err
}
