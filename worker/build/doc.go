// Package build makes store paths exist: it is the one scheduler of the machine's builds and substitutions.
//
// A [Scheduler] serves all connections. Each request ([Scheduler.BuildPaths] and its like) runs a graph of goals on the
// goroutine of its caller: an output is wanted, hence its derivation, hence the derivation's inputs. A goal waits for a
// count of other goals, and the end of one wakes only those that wait for it, so the work is linear in the graph. Goals
// belong to their request: what one client asks for, gives up or configures is nothing to another.
//
// What is shared is the job: one derivation being built, or queued to be. A job is keyed by what it makes and by the
// settings that change the outcome. Requests subscribe to it; who joins late is told again what the builder said so far.
// Jobs wait for a slot without a goroutine and run on one goroutine each. A job ends early when nobody subscribes to
// it any more: the builder's whole process tree dies.
//
// # Slots
//
// A client has at most its own max-jobs builds running, all clients together at most [Options].MaxTotalJobs. A free
// slot goes to the users in turn, within a user to the clients in turn, within a client to who came first.
//
// # Other machines
//
// A job that another machine may build asks for one before it asks for a slot ([Remote], [Machines]). Jobs that need the
// same of a machine ask one after the other; see gate.go. While it asks, a job holds a slot if one is free, so that it can
// be told to build here at once. Builds elsewhere take no slots.
//
// # Builds within builds
//
// A builder may have a daemon for its build alone (upstream's recursive-nix and builder-rpc-v0). [Nested] is that build as
// the daemon sees it; what builders ask for are requests like others, which run in the slot of the builder that waits.
// See lend.go for why that ends.
//
// # One build
//
// A job passes through steps, each a function of its own: inputs, output locks (shared with foreign processes), a
// second look whether the outputs exist, build user, build directory, scratch paths, environment, the builder itself
// (package sandbox), the registration of what it made (ownership, metadata, references, content addresses, checks,
// one transaction), and the administrator's post-build hook.
//
// # Isolation
//
// Whether the builder has a world of its own is decided first. If so, a directory in the store next to the derivation
// ("….drv.chroot") holds the store that the builder sees, where it makes its outputs under the paths that they are to
// have: what is there already is not visible to it, so nothing is rewritten but paths that are not known beforehand.
// A pure function lists what else is in its root; package sandbox makes it so, in memory. From there outputs are moved
// into the store by the names of the daemon's directories, which no builder can reach.
//
// These directories are used again for builders that could meet nobody (chrootPool), and so are the mounts of many inputs
// (assembled): builders with the same large closure are given copies of one set of mounts, while nothing else in the
// world of one was in that of another. What a builder has made there is known by watching, so that nobody has to look through
// hundreds of mount points for it.
//
// # Texts
//
// Failures carry upstream's texts (release 2.34.8). Upstream highlights arguments with escape sequences, on the wire
// too; a [Text] knows which parts those are, prints without them as an error, and with them for a client
// ([Text.Coloured]).
//
// # Lock order
//
// Scheduler.mu, then the mutex of a job's feed or of a request's inbox; a feed's, then that of a request's [jobLog], then,
// for a build within a build, those of the outer one in the same order: no build is within itself.
// But for these two, which hold while a client takes what it is told, no lock is held while a store, a process or a
// client is waited for.
package build
