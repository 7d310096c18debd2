package peer

import (
	"context"
	"errors"
	"io"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/remote/ssh"
)

// daemon is a store that is spoken to by the worker protocol.
type daemon struct {
	cfg    Config
	client *client.Client
	master *ssh.Master // nil for a socket
}

var _ Store = (*daemon)(nil)

func newDaemon(cfg Config, o Options, dial func(context.Context) (io.ReadWriteCloser, error), master *ssh.Master, s *protocol.ClientOptions) *daemon {
	return &daemon{cfg: cfg, master: master, client: client.New(client.Options{
		Dial: dial, Dir: cfg.Dir, Version: o.Version, MaxConns: cfg.MaxConnections, MaxAge: cfg.MaxConnectionAge,
		Settings: s, Log: o.Log, Name: cfg.URI, Features: o.Features,
	})}
}

// Config implements Store.
func (d *daemon) Config() Config { return d.cfg }

// URI implements Store.
func (d *daemon) URI() string { return d.cfg.URI }

// Dir implements Store.
func (d *daemon) Dir() storepath.Dir { return d.cfg.Dir }

// ValidPaths implements Store.
func (d *daemon) ValidPaths(ctx context.Context, paths []storepath.Path, substitute bool) ([]storepath.Path, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	return d.client.ValidPaths(ctx, paths, substitute)
}

// PathInfos implements Store.
func (d *daemon) PathInfos(ctx context.Context, paths []storepath.Path) ([]*pathinfo.Info, error) {
	return d.client.PathInfos(ctx, paths)
}

// Closure implements Store, a level at a time.
func (d *daemon) Closure(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	return walk(ctx, d, paths)
}

// NAR implements Store.
func (d *daemon) NAR(ctx context.Context, p storepath.Path) (io.ReadCloser, error) {
	return openArchive(ctx, func(ctx context.Context, w io.Writer) error { return d.client.Dump(ctx, p, w) })
}

// Import implements Store.
func (d *daemon) Import(ctx context.Context, infos []*pathinfo.Info, nar func(context.Context, *pathinfo.Info, io.Writer) error, o ImportOptions) error {
	infos, err := referencesFirst(d.cfg.Dir, infos)
	if err != nil || len(infos) == 0 {
		return err
	}
	c := d.logging(o.Log)
	write := func(info *pathinfo.Info, w io.Writer) error { return nar(ctx, info, w) }
	err = c.AddManyWritten(ctx, o.Repair, o.DontCheckSigs, infos, write)
	if !errors.Is(err, client.ErrNoBatch) {
		return err
	}
	for _, info := range infos {
		err := c.AddWritten(ctx, protocol.AddToStoreNarRequest{
			Info: info, Repair: o.Repair, DontCheckSigs: o.DontCheckSigs,
		}, func(w io.Writer) error { return write(info, w) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *daemon) logging(log activity.Sink) *client.Client {
	if log == nil {
		return d.client
	}
	return d.client.LoggingTo(log)
}

// Realisation implements Store.
func (d *daemon) Realisation(ctx context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	return d.client.QueryRealisation(ctx, id)
}

// RegisterRealisation implements Store.
func (d *daemon) RegisterRealisation(ctx context.Context, r *pathinfo.Realisation) error {
	return d.client.RegisterRealisation(ctx, r)
}

// KeysByPath implements Store.
func (d *daemon) KeysByPath(ctx context.Context) (bool, error) {
	v, err := d.client.Negotiated(ctx)
	return v.Has(protocol.FeatureRealisationWithPath), err
}

// BuildDerivation implements Store.
func (d *daemon) BuildDerivation(ctx context.Context, drvPath storepath.Path, drv *derivation.BasicDerivation, o BuildOptions) (derivation.BuildResult, error) {
	return d.logging(o.Log).BuildDerivation(ctx, protocol.BuildDerivationRequest{DrvPath: drvPath, Derivation: drv, Mode: o.Mode})
}

// BuildPathsWithResults implements Store.
func (d *daemon) BuildPathsWithResults(ctx context.Context, paths []derivation.DerivedPath, o BuildOptions) ([]derivation.KeyedBuildResult, error) {
	return d.logging(o.Log).BuildPathsWithResults(ctx, paths, o.Mode)
}

// Trust implements Store.
func (d *daemon) Trust(ctx context.Context) (protocol.Trust, error) {
	info, err := d.client.Server(ctx)
	return info.Trust, err
}

// AddSignatures implements Store.
func (d *daemon) AddSignatures(ctx context.Context, p storepath.Path, sigs []pathinfo.Signature) error {
	return d.client.AddSignatures(ctx, p, sigs)
}

// AddBuildLog implements Store.
func (d *daemon) AddBuildLog(ctx context.Context, drv storepath.Path, log io.Reader) error {
	return d.client.AddBuildLog(ctx, drv, log)
}

// Connect implements Store.
func (d *daemon) Connect(ctx context.Context) error {
	_, err := d.client.Server(ctx)
	return err
}

// Close implements Store.
func (d *daemon) Close() error {
	err := d.client.Close()
	if d.master != nil {
		err = errors.Join(err, d.master.Close())
	}
	return err
}
