// Package darwinexec is the last step before a builder on macOS: a mode of the daemon's own program that executes the
// builder with what sandbox-exec(1) cannot give it.
//
// A [Job] is what to execute. [Job.Command] turns it into the arguments and environment of a process that runs the
// daemon's program; there [Invoked] recognises it and [Main] executes the job. In between, sandbox-exec has put the
// process under its profile, so the step happens inside.
//
// # Why a step of our own
//
// macOS removes DYLD_ variables from the environment of the system's programs, sandbox-exec and arch(1) among them;
// both pass the program's whole file name on as argv[0], where builders expect the last component; and only
// posix_spawn(2) can say which architecture of a universal program is to run. Without cgo there is no way to enter a
// profile in a forked child, hence sandbox-exec before this step. It costs two more executions, some five
// milliseconds, on each build.
//
// The functions of the C library that Go's own packages do not offer are bound to as golang.org/x/sys/unix does, by
// dynamic import and a jump; they are the same on both architectures.
package darwinexec
