// Package sandbox runs one builder process from a plain specification.
//
// A [Spec] says everything about the process: program, arguments, environment, directory, user, privileges.
// A [Launcher] starts it, and the [Process] that results is read (the builder's terminal output),
// killed (with everything that it started) and waited for.
// The package knows nothing of stores or derivations and imports nothing else of ours but its own parts.
//
// # What every builder gets
//
// A session of its own without a controlling terminal; /dev/null as standard input; one pseudoterminal in raw mode as
// standard output and error; umask 022; a soft core limit of zero; no other descriptor; default signal handling;
// on Linux a fixed address-space layout, SIGKILL when the daemon dies, and no new privileges unless allowed.
//
// # Isolation
//
// An [Isolation] gives the builder namespaces and a root of its own, built from nothing. It is turned into an ordered list
// of system calls by a pure function (internal/plan, where the order is argued) and carried out by a clone of the daemon
// that runs nothing else (internal/child, where the dialogue between the two is told): there is no second program.
// What costs much and carries nothing from build to build is kept: user namespaces, one for each build user, and network
// namespaces in which nobody has sent anything.
//
// Many mounts that one builder after another needs can be made once ([Launcher.Assemble]). No builder enters the mount
// namespace that holds them: each gets a copy, in one call, which shares with the original nothing but what is mounted. A
// mount costs the kernel 5 us to make and about as much to end, in a copy 0.8 and 0.6 us; less than a mount for each path
// would show builders names that are not for them.
//
// A step that fails is an error that names it: "set up sandbox of '/bin/sh': mount '/proc': operation not permitted".
// Nothing is left out because it does not work. [Launcher.Support] tells beforehand what the machine can do.
//
// The builder is process 1 of its process namespace: when it ends the kernel ends all that it has started, and only then
// reports its end. [Process.Mount] makes more paths appear while it runs.
//
// # Launcher threads
//
// A builder that is not isolated costs one fork and one exec; there is no intermediate program here either.
// What the exec'd program has to inherit but Go's fork cannot set (personality, no-new-privileges, the system call
// filter, the umask) is set once on a thread that does nothing but fork: one thread for each distinct set. Children that
// become isolated builders are cloned by the same threads, since loading the filter costs more than the clone.
// Such a thread lives until [Launcher.Close], because the kernel sends the parent-death signal when the forking
// thread ends, not the process.
//
// # Killing
//
// With a build user, all processes of that uid are killed in one system call made under that uid, which no fork can
// outrun; nothing of that uid is left when [Process.Wait] returns, and none is there when [Launcher.Start] forks.
// Without a build user and isolation the tree is found by session, process group, ancestry, and (for daemonised
// processes, which have cut all three) by a working directory or inherited environment naming the build directory.
//
// # Lock order
//
// Process.mu before the process-wide core limit lock; Launcher.mu is never held across a system call that can block.
package sandbox
