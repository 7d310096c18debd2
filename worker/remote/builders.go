package remote

import (
	"slices"
	"sync"

	"github.com/rs/zerolog"

	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/build"
	"nixdaemon/worker/settings"
)

// Options join [Builders] to the rest.
type Options struct {
	// Dir is the store directory.
	Dir storepath.Dir
	// Log is the daemon's own log.
	Log zerolog.Logger
}

// Builders knows all machines that build for this one. Its methods may be called from any goroutine.
type Builders struct {
	o Options

	mu    sync.Mutex
	hooks map[string]*hooks
	// ending are hooks that are being killed.
	ending sync.WaitGroup
}

var _ build.Remote = (*Builders)(nil)

// New makes Builders without machines: those come with the settings. Close it.
func New(o Options) *Builders {
	return &Builders{o: o, hooks: make(map[string]*hooks)}
}

// builtinHook is the setting build-hook's default: the program that upstream has for it, whose work we do ourselves.
var builtinHook = []string{"nix", "__build-remote"}

// Machines implements build.Remote.
func (b *Builders) Machines(set *settings.Settings) build.Machines {
	switch {
	case len(set.BuildHook) == 0:
		return nil
	case isBuiltin(set):
		return nil
	}
	return b.hooksFor(set)
}

// Configured implements build.Remote.
func (b *Builders) Configured(set *settings.Settings) bool { return set.Builders != "" }

func isBuiltin(set *settings.Settings) bool {
	return slices.Equal(set.BuildHook, builtinHook)
}

// Close waits for what is ending. Nobody may use machines any more.
func (b *Builders) Close() error {
	b.ending.Wait()
	return nil
}
