package gc

import (
	"slices"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
)

// Action says what a collection does. The numbers are the protocol's.
type Action uint64

// The actions.
const (
	ReturnLive     Action = 0 // tell what is alive
	ReturnDead     Action = 1 // tell what is dead
	DeleteDead     Action = 2 // delete what is dead
	DeleteSpecific Action = 3 // delete the given paths, or fail
)

func (a Action) deletes() bool { return a == DeleteDead || a == DeleteSpecific }

// Request says what to collect.
type Request struct {
	Action Action
	// WholeStore is true for a collection that is not confined to Paths.
	WholeStore bool
	Paths      []storepath.Path
	// DeleteReferrers lets Paths' dead referrers be deleted with them; otherwise a path that has one is kept.
	DeleteReferrers bool
	// MaxFreed is after how many freed bytes to stop; 0 collects nothing of a whole store.
	MaxFreed uint64
	// Needed, if not nil, is asked once no other collection can run any more, and gives MaxFreed; 0 is for doing nothing.
	Needed func() (uint64, error)
	// KeepOutputs keeps the outputs of live derivations, KeepDerivations the derivers of live paths (settings
	// keep-outputs and keep-derivations). Clients before 2.35 expect both to count for DeleteSpecific, later ones
	// neither; they never count for the other actions on specific paths.
	KeepOutputs, KeepDerivations bool
	// For names who asks, for the [Observer].
	For string
	// Log receives messages; nil drops them.
	Log activity.Sink
}

// specific gives the paths that a collection is confined to, as a set.
func (r *Request) specific() []storepath.Path {
	if r.WholeStore {
		return nil
	}
	return storepath.SortUnique(slices.Clone(r.Paths))
}

// Results tell what a collection found or did.
type Results struct {
	// Paths are full paths of what is alive, dead or deleted; in the latter cases not only store paths.
	Paths []string
	// BytesFreed counts files that had one name, or one more in .links.
	BytesFreed uint64
}

// AliveError says that a path that was to be deleted cannot be.
type AliveError struct {
	Path string // full store path
}

func (e *AliveError) Error() string {
	return "Cannot delete path '" + e.Path + "' since it is still alive. To find out why, use: " +
		"nix-store --query --roots and nix-store --query --referrers"
}
