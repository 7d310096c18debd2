// Package child carries out the steps of package plan in a clone of the daemon.
//
// The child shares the daemon's memory but never runs Go: it is a loop of a few instructions (run_linux_*.s) over an
// [Image], a table of system calls with all that they point to, and touches no stack. So it costs no copy of page tables
// and no second program, and nothing that happens in the daemon meanwhile can disturb it. All signals are blocked from
// before the clone until the last steps: a handler would run Go in it.
//
// # Dialogue
//
//	daemon                                   child
//	builds the image
//	clone ---------------------------------> runs step after step
//	waits for the word "alive"               a step fails: writes its place and the error
//	                                         number to the image, ends
//	                                         the last step executes the builder
//	alive = 0 <----------------------------- (the kernel, at exec and at exit alike)
//	looks into the image: a failed step,
//	or none, and then the builder runs
//
// There is no descriptor between the two that a builder could inherit, and nothing that the child waits for.
package child
