package remote

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/build"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/settings"
)

// Store is what remote building needs of this machine's store; *localstore.Store is one.
type Store interface {
	IsValid(ctx context.Context, p storepath.Path) (bool, error)
	PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error)
	Closure(ctx context.Context, start []storepath.Path, o localstore.ClosureOptions) ([]storepath.Path, error)
	ReadDerivation(ctx context.Context, p storepath.Path) (*derivation.Derivation, error)
	Dump(ctx context.Context, p storepath.Path, w io.Writer) error
	AddNAR(ctx context.Context, info *pathinfo.Info, r io.Reader, o localstore.AddOptions) error
	QueryRealisation(ctx context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error)
	RegisterRealisation(ctx context.Context, r *pathinfo.Realisation) error
}

var _ Store = (*localstore.Store)(nil)

// Options join [Builders] to the rest.
type Options struct {
	Store Store
	// StoreURI is what messages call it; "" is "local".
	StoreURI string
	// Dir is the store directory, StateDir that of the database.
	Dir      storepath.Dir
	StateDir string
	// SocketPath is where this machine's daemon listens, for machines called "daemon".
	SocketPath string
	// Self is this program, which serves the stores of this machine that are given as machines.
	Self string
	// IDs numbers activities.
	IDs *activity.IDs
	// Log is the daemon's own log.
	Log zerolog.Logger
	// Now is the clock; nil is the real one.
	Now func() time.Time
}

// Builders knows all machines that build for this one. Its methods may be called from any goroutine.
type Builders struct {
	o     Options
	now   func() time.Time
	load  load
	sites sites
	memo  *derivation.Memo

	mu    sync.Mutex
	hooks map[string]*hooks
	// ending are hooks that are being killed.
	ending sync.WaitGroup
}

var _ build.Remote = (*Builders)(nil)

// memoSize is how many hashes modulo are remembered.
const memoSize = 1 << 12

// New makes Builders without machines: those come with the settings. Close it.
func New(o Options) *Builders {
	b := &Builders{o: o, now: o.Now, load: load{o.StateDir + "/current-load"}, hooks: make(map[string]*hooks), memo: derivation.NewMemo(memoSize)}
	if b.o.StoreURI == "" {
		b.o.StoreURI = localName
	}
	if b.now == nil {
		b.now = time.Now
	}
	b.sites = sites{b: b, open: peer.Open, all: make(map[string]*site), signal: make(chan struct{})}
	return b
}

// builtinHook is the setting build-hook's default: the program that upstream has for it, whose work we do ourselves.
var builtinHook = []string{"nix", "__build-remote"}

// Machines implements build.Remote.
func (b *Builders) Machines(set *settings.Settings) build.Machines {
	switch {
	case len(set.BuildHook) == 0:
		return nil
	case isBuiltin(set):
		return b.poolFor(set)
	}
	return b.hooksFor(set)
}

// Configured implements build.Remote.
func (b *Builders) Configured(set *settings.Settings) bool {
	machines, err := Parse(set.Builders, set.System)
	return err != nil || len(machines) > 0
}

func isBuiltin(set *settings.Settings) bool {
	return slices.Equal(set.BuildHook, builtinHook)
}

// reachable is the reference by which a machine is spoken to. A store of this machine is served by another process of
// ours.
func (b *Builders) reachable(m *Machine) (settings.StoreReference, error) {
	ref := m.reference()
	if ref.Scheme != "local" && ref.Kind != settings.ReferenceAuto {
		return ref, nil
	}
	if b.o.Self == "" {
		return ref, errors.New("stores of this machine cannot be used as remote builders")
	}
	features := strings.Join(append(slices.Clone(m.Supported), m.Mandatory...), " ")
	ref.Params = append(slices.Clone(ref.Params), settings.Param{Name: "system-features", Value: features})
	return settings.StoreReference{Kind: settings.ReferenceURL, Scheme: "ssh-ng", Authority: "localhost", Params: []settings.Param{
		{Name: "remote-program", Value: b.o.Self}, {Name: "remote-store", Value: ref.String()},
	}}, nil
}

// Retire closes idle connections to machines, and keeps none from now on: when we wait for the last client to leave, one
// of those may lead to ourselves.
func (b *Builders) Retire() error { return b.sites.close() }

// Close closes what is idle and waits for what is ending. Nobody may use machines any more.
func (b *Builders) Close() error {
	b.ending.Wait()
	return b.sites.close()
}
