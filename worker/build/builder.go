package build

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/sandbox/buildusers"
	"nixdaemon/sandbox/cgroup"
	"nixdaemon/worker/builtin/builtinjob"
	"nixdaemon/worker/settings"
)

// Options join a [Scheduler] to the rest.
type Options struct {
	Store *localstore.Store
	// Launcher starts the builders. Its owner closes it after the scheduler.
	Launcher Launcher
	// Users are who builders run as, if the settings say so; nil means always the daemon's own user.
	Users *buildusers.Pool
	// Cgroups is where builds that want a cgroup of their own get it; nil means that the machine has none.
	Cgroups *cgroup.Hierarchy
	// Substituter gets paths from elsewhere; nil means that everything is built.
	Substituter Substituter
	// Remote has derivations built on other machines; nil means that none are.
	Remote Remote
	// IDs numbers activities; the daemon has one for all that it tells clients.
	IDs *activity.IDs
	// MaxTotalJobs is how many builds run at once for all clients together; at least 1.
	MaxTotalJobs int
	// BuiltinCommand gives the program that carries out a builtin builder ("fetchurl"), with its arguments; it is never
	// empty: the program complains about unknown ones. It is run as any builder is, in the build directory, and finds
	// there the file [builtinjob.File]. Without this function no builtin can be executed.
	BuiltinCommand func(name string) []string
	// S3Keys finds what requests to an s3:// URL are signed with, for builtin:fetchurl, which cannot look for itself; nil
	// for nothing, as is a nil function.
	S3Keys func(ctx context.Context, url string) *builtinjob.Keys
	// Nested serves a connection that a builder has made to the daemon that is there for its build alone (upstream's
	// recursive-nix and builder-rpc-v0), until ctx ends or the builder hangs up; conn is closed by the caller. Without this
	// function derivations that want such a daemon cannot be built.
	Nested func(ctx context.Context, conn net.Conn, n *Nested) error
	// Getenv is the daemon's environment, for impureEnvVars; nil means an empty one.
	Getenv func(name string) string
	// Features are the daemon's own experimental features, for questions that no client's settings belong to.
	Features settings.FeatureSet
	// SystemFeatures are those that the machine has for derivations that require them (setting system-features); nil
	// means what each client's settings say.
	SystemFeatures []string
	// Timed is told of each build whose builder has run, at its end and on its goroutine; nil if nobody wants to know.
	Timed func(drvPath storepath.Path, t Timing)
	// Observer is told what becomes of builds; nil if nobody wants to know.
	Observer Observer
	// LogSpool is a directory for the logs of running builds that somebody may want to read along ([Scheduler.FollowLog]); ""
	// if nobody can.
	LogSpool string
	// Numbers is the last number that a build was given, for several schedulers whose builds are looked at together; nil for
	// one alone. Only [NewAway] asks for it.
	Numbers *atomic.Uint64
	// Log is the daemon's own log.
	Log zerolog.Logger
	// idleTime is how long directories of builders wait for the next; 0 is the constant of that name.
	idleTime time.Duration
}

// Launcher starts builders; *sandbox.Launcher is one.
type Launcher interface {
	Start(ctx context.Context, spec sandbox.Spec) (*sandbox.Process, error)
	// ClearUser kills all processes of count users, from uid on.
	ClearUser(uid, count uint32) error
	// Support tells which isolation Start is capable of.
	Support() sandbox.Support
	// Assemble mounts binds below a directory, for the builders to come.
	Assemble(dir, root string, binds []sandbox.Bind, user *sandbox.User, ids *sandbox.IDMap) (*sandbox.Assembly, error)
}

var _ Launcher = (*sandbox.Launcher)(nil)

// New makes a scheduler. Close it.
func New(o Options) *Scheduler {
	b := &builder{o: o, store: o.Store, logs: o.Store.BuildLogs(), dir: o.Store.Dir(), chroots: &chrootPool{
		store: o.Store, most: min(max(1, o.MaxTotalJobs), mostIdleChroots), patience: cmp.Or(o.idleTime, idleTime),
	}}
	b.dirs.Store(rand.Uint32())
	s := newScheduler(o.Store, o.Substituter, o.IDs, o.Log, max(1, o.MaxTotalJobs), b.run)
	s.features, s.systemFeatures = o.Features, o.SystemFeatures
	s.remote, s.observer, s.spool = o.Remote, o.Observer, newSpool(o.LogSpool)
	s.ended = b.chroots.close
	return s
}

// builder carries out jobs.
type builder struct {
	o     Options
	store *localstore.Store // nil for a store that is away
	logs  *localstore.BuildLogs
	dir   storepath.Dir
	dirs  atomic.Uint32 // numbers build directories
	// fallback is when the administrator is told that builds are not isolated.
	fallback sync.Once
	// noCgroups is true once the machine has refused to make a cgroup.
	noCgroups atomic.Bool
	chroots   *chrootPool
}
