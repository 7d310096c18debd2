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
// # Launcher threads
//
// Starting a builder costs one fork and one exec of the builder itself; there is no intermediate program.
// What the exec'd program has to inherit but Go's fork cannot set (personality, no-new-privileges, the system call
// filter, the umask) is set once on a thread that does nothing but fork: one thread for each distinct set.
// Such a thread lives until [Launcher.Close], because the kernel sends the parent-death signal when the forking
// thread ends, not the process.
//
// # Killing
//
// With a build user, all processes of that uid are killed in one system call made under that uid, which no fork can
// outrun; nothing of that uid is left when [Process.Wait] returns, and none is there when [Launcher.Start] forks.
// Without a build user the tree is found by session, process group, ancestry, and (for daemonised processes, which
// have cut all three) by a working directory or inherited environment naming the build directory.
//
// # Lock order
//
// Process.mu before the process-wide core limit lock; Launcher.mu is never held across a system call that can block.
package sandbox
