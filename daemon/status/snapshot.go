// Package status says what a daemon does at one moment, in a form for people and programs.
//
// A [Snapshot] holds one [Server] for each process that serves: usually one, more while an earlier one finishes what it
// has begun. It has a JSON form, which this package's fields and their tags are, with a number, [Version]. New members may
// be added under the same number; programs must not mind members that they do not know. Times are those of RFC 3339,
// sizes are in bytes. What cannot be told, or is nobody's business ([Server.For]), is left out.
//
// Package board makes snapshots, package view shows them on a terminal, package statussocket carries them between
// processes.
package status

import (
	"cmp"
	"slices"
	"time"
)

// Version is the number of the JSON form.
const Version = 1

// Snapshot is what the daemon did at one moment.
type Snapshot struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	// Servers are those that serve, the newest first.
	Servers []Server `json:"servers"`
}

// Server is one process.
type Server struct {
	PID     int    `json:"pid"`
	Release string `json:"release"`
	// State is "serving", or "draining" when it finishes what it has begun and accepts nobody.
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Problem is why no client is served, nothing if all are.
	Problem string `json:"problem,omitempty"`
	// Memory is what of the process is resident.
	Memory uint64 `json:"memory,omitempty"`
	// Slots are how many builds may run at once, Running how many do.
	Slots   int `json:"slots"`
	Running int `json:"running"`
	// Builds run or wait; those that run come first, the oldest of each state before the others.
	Builds []Build `json:"builds"`
	// Waiting are parts of requests on which no work is done yet, those first that wait for the fewest things; MoreWaiting
	// counts those that are not listed.
	Waiting     []Wait `json:"waiting"`
	MoreWaiting int    `json:"moreWaiting,omitempty"`
	// Requests are what clients wait for.
	Requests []Request `json:"requests"`
	// OtherRequests are those of others than who asks.
	OtherRequests int `json:"otherRequests,omitempty"`
	// Substitutions are paths that are being fetched.
	Substitutions []Substitution `json:"substitutions"`
	// Collection of garbage that runs.
	Collection *Collection `json:"collection,omitempty"`
	// Connections are clients, the oldest first.
	Connections []Connection `json:"connections"`
	// OtherConnections are those of others than who asks.
	OtherConnections int `json:"otherConnections,omitempty"`
	// Recent are builds, substitutions and collections that have ended, the last first.
	Recent []Ended `json:"recent"`
}

// The states of a build.
const (
	Running = "running"
	Waiting = "waiting"
	Queued  = "queued"
)

// Build is a derivation that is built or waits.
type Build struct {
	// ID tells it from all others: of the server's process, a dash, a number.
	ID         string `json:"id"`
	Derivation string `json:"derivation"`
	// Mode is "repair" or "check"; nothing for an ordinary build.
	Mode string `json:"mode,omitempty"`
	// State is "running", "waiting" for what Reason says, or "queued" for a slot; Since is when that began.
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	Queued time.Time `json:"queued"`
	// Began is when the builder was started.
	Began *time.Time `json:"began,omitempty"`
	// Machine is where it runs; nothing for this one.
	Machine string `json:"machine,omitempty"`
	// Phase is what the builder has announced last, LastLine the last line of its log, LogSize the log's size.
	Phase    string `json:"phase,omitempty"`
	LastLine string `json:"lastLine,omitempty"`
	LogSize  uint64 `json:"logSize"`
	// CPUSeconds of processor time, Memory and Processes are what the builder takes on this machine.
	CPUSeconds float64 `json:"cpuSeconds,omitempty"`
	Memory     uint64  `json:"memory,omitempty"`
	Processes  int     `json:"processes,omitempty"`
	// Users want it, Others is how many more do.
	Users  []string `json:"users"`
	Others int      `json:"others,omitempty"`
}

// Wait is a derivation to be built, or a path to be fetched, that waits for others.
type Wait struct {
	// Kind is "build" or "substitution", What the derivation or the path.
	Kind string `json:"kind"`
	What string `json:"what"`
	// Reason is "inputs", "references", "substitution slot" or "answer of a cache"; Open is how many inputs or references
	// are missing.
	Reason string `json:"reason"`
	Open   int    `json:"open,omitempty"`
	// For is some of the work that it waits for, however far below; what runs comes first.
	For []Cause `json:"for,omitempty"`
	// Users want it, Others is how many more do.
	Users  []string `json:"users"`
	Others int      `json:"others,omitempty"`
}

// Cause is work that something waits for.
type Cause struct {
	// Kind is "build" or "substitution", What the derivation or the path.
	Kind string `json:"kind"`
	What string `json:"what"`
	// State is "running", "queued" for a build that has a line of its own, or the reason that a substitution waits for.
	State string `json:"state"`
}

// Request is what one client waits for.
type Request struct {
	User   string    `json:"user"`
	Client uint64    `json:"client"`
	Since  time.Time `json:"since"`
	// Builds counts derivations, Substitutions paths.
	Builds        Count `json:"builds"`
	Substitutions Count `json:"substitutions"`
}

// Count is how many are done, how many are not, of these how many are being worked on, and how many have failed.
type Count struct {
	Done    uint64 `json:"done"`
	Open    uint64 `json:"open"`
	Running uint64 `json:"running"`
	Failed  uint64 `json:"failed"`
}

// Substitution is a path that is being fetched.
type Substitution struct {
	Path  string `json:"path"`
	Cache string `json:"cache,omitempty"`
	// Done of Size bytes of the archive have arrived.
	Done  uint64    `json:"done"`
	Size  uint64    `json:"size,omitempty"`
	Since time.Time `json:"since"`
	User  string    `json:"user,omitempty"`
}

// Collection is a collection of garbage.
type Collection struct {
	// Action is "return-live", "return-dead", "delete-dead" or "delete-specific"; Step is what it does.
	Action string    `json:"action"`
	Step   string    `json:"step"`
	Since  time.Time `json:"since"`
	// For is who asked; "min-free" is the daemon itself.
	For string `json:"for,omitempty"`
	// Deleted of Dead names are deleted, which freed so many bytes. At MaxFreed it stops, if that is not 0.
	Dead     uint64 `json:"dead"`
	Deleted  uint64 `json:"deleted"`
	Freed    uint64 `json:"freed"`
	MaxFreed uint64 `json:"maxFreed,omitempty"`
}

// Connection is a client.
type Connection struct {
	Client  uint64    `json:"client"`
	User    string    `json:"user"`
	PID     int       `json:"pid,omitempty"`
	Trusted bool      `json:"trusted"`
	Since   time.Time `json:"since"`
	// Operation is what it waits for, Began since when; nothing if it waits for nothing.
	Operation string     `json:"operation,omitempty"`
	Began     *time.Time `json:"began,omitempty"`
	// Operations is how many it has asked for.
	Operations uint64 `json:"operations"`
}

// The kinds of what has ended.
const (
	KindBuild        = "build"
	KindSubstitution = "substitution"
	KindCollection   = "collection"
)

// Ended is something that has ended.
type Ended struct {
	// Kind is "build", "substitution" or "collection".
	Kind string `json:"kind"`
	// What is a path.
	What string `json:"what,omitempty"`
	// Outcome is "succeeded", "failed" or "given up"; Error says more.
	Outcome string    `json:"outcome"`
	Error   string    `json:"error,omitempty"`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended"`
	// Bytes were fetched or freed.
	Bytes uint64   `json:"bytes,omitempty"`
	Users []string `json:"users,omitempty"`
}

// The outcomes.
const (
	Succeeded = "succeeded"
	Failed    = "failed"
	GivenUp   = "given up"
)

// Join makes a snapshot of what several servers have said.
func Join(now time.Time, servers ...Server) Snapshot {
	slices.SortFunc(servers, func(a, b Server) int {
		return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(b.PID, a.PID))
	})
	if servers == nil {
		servers = []Server{}
	}
	return Snapshot{Version: Version, Time: now, Servers: servers}
}
