package forward

import (
	"context"
	"errors"
	"fmt"
	"io"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/limited"
)

// AddNAR adds a path with its metadata. Exactly one archive is taken from nar.
func (b *Backend) AddNAR(ctx context.Context, info *pathinfo.Info, nar io.Reader, o localstore.AddOptions) error {
	a := &archive{stream: nar}
	err := b.client.AddNAR(ctx, protocol.AddToStoreNarRequest{
		Info: info, Repair: o.Repair, DontCheckSigs: o.DontCheckSigs,
	}, a)
	if closeErr := a.close(); err == nil {
		err = closeErr
	}
	return err
}

// AddNARs adds the paths that next gives, one by one.
func (b *Backend) AddNARs(ctx context.Context, next func() (*pathinfo.Info, io.Reader, error), o localstore.AddOptions) error {
	for {
		info, nar, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := b.AddNAR(ctx, info, nar, o); err != nil {
			return err
		}
	}
}

// AddEntries adds the paths of an OpAddMultipleToStore, whose form it keeps:
// their number, then metadata and a NAR each.
func (b *Backend) AddEntries(ctx context.Context, entries *protocol.Reader, o localstore.AddOptions) error {
	err := b.client.AddEntries(ctx, o.Repair, o.DontCheckSigs, entries)
	if !errors.Is(err, client.ErrNoBatch) {
		return err
	}
	return b.AddNARs(ctx, limited.Entries(entries), o)
}

// AddDump adds contents under their content address.
func (b *Backend) AddDump(ctx context.Context, spec localstore.DumpSpec, data io.Reader, o localstore.AddOptions) (*pathinfo.Info, error) {
	info, err := b.addDump(ctx, spec, data)
	if err != nil || !info.NarHash.IsZero() {
		return info, err
	}
	return b.PathInfo(ctx, info.Path)
}

func (b *Backend) addDump(ctx context.Context, spec localstore.DumpSpec, data io.Reader) (*pathinfo.Info, error) {
	server, err := b.client.Negotiated(ctx)
	if err != nil {
		return nil, err
	}
	isNAR := spec.Method == storepath.MethodNAR || spec.Method == storepath.MethodGit
	switch {
	case !server.AtLeast(25):
		return b.addOldDump(ctx, spec, data, isNAR || spec.IsNAR)
	case spec.IsNAR && !isNAR:
		var info *pathinfo.Info
		err := nar.Parse(data, limited.OneFile(func(contents io.Reader) (err error) {
			info, err = b.client.AddToStore(ctx, addRequest(spec), contents)
			return err
		}))
		return info, err
	}
	return b.client.AddToStore(ctx, addRequest(spec), data)
}

func addRequest(spec localstore.DumpSpec) protocol.AddToStoreRequest {
	return protocol.AddToStoreRequest{
		Name: spec.Name, MethodAlgo: storepath.PrintCAMethod(spec.Method, spec.Algo),
		References: spec.References, Repair: spec.Repair,
		OldMethod: spec.Method, OldAlgo: spec.Algo,
	}
}

// addOldDump is for daemons before 1.25, which take texts as strings, and all
// else as archives without references.
func (b *Backend) addOldDump(ctx context.Context, spec localstore.DumpSpec, data io.Reader, isNAR bool) (*pathinfo.Info, error) {
	switch {
	case spec.Repair:
		return nil, errors.New("repairing is not supported when building through the Nix daemon protocol < 1.25")
	case spec.Method == storepath.MethodText:
		return b.addText(ctx, spec, data)
	case spec.Method == storepath.MethodGit || len(spec.References) > 0:
		return nil, fmt.Errorf("cannot add '%s': the other daemon's protocol is too old for its content address", spec.Name)
	case isNAR:
		a := &archive{stream: data}
		defer a.close()
		return b.client.AddToStore(ctx, addRequest(spec), a)
	}
	flat, err := flatArchive(data)
	if err != nil {
		return nil, err
	}
	defer flat.Close()
	return b.client.AddToStore(ctx, addRequest(spec), flat)
}

func (b *Backend) addText(ctx context.Context, spec localstore.DumpSpec, data io.Reader) (*pathinfo.Info, error) {
	if spec.Algo != nixhash.SHA256 {
		return nil, fmt.Errorf("When adding text-hashed data called '%s', only SHA-256 is supported but '%s' was given", spec.Name, spec.Algo)
	}
	text, err := io.ReadAll(io.LimitReader(data, wire.MaxString+1))
	if err != nil {
		return nil, err
	}
	if len(text) > wire.MaxString {
		return nil, wire.ErrStringTooLong
	}
	p, err := b.client.AddText(ctx, protocol.AddTextRequest{Name: spec.Name, Text: string(text), References: spec.References})
	return &pathinfo.Info{Path: p}, err
}

// AddSignatures adds signatures to a valid path.
func (b *Backend) AddSignatures(ctx context.Context, p storepath.Path, sigs []pathinfo.Signature) error {
	return b.client.AddSignatures(ctx, p, sigs)
}

// AddBuildLog adds the log of a derivation's build.
func (b *Backend) AddBuildLog(ctx context.Context, drv storepath.Path, log io.Reader) error {
	return b.client.AddBuildLog(ctx, drv, log)
}
