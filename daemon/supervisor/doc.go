// Package supervisor keeps a server running behind sockets that outlive it.
//
// The supervisor is the process that the service manager knows. It owns the listening sockets and little else: it
// starts a server, which is the same program with the sockets inherited, and speaks to the service manager for it. The
// two talk over a control socket (control.go), a line for each message. A server is
//
//   - starting until it says that it is ready,
//   - serving until it is told to drain or dies,
//   - draining, when it accepts nobody and goes on until its last client has gone.
//
// On SIGHUP the supervisor starts the program anew, from whatever file now stands where it was started from, and has the
// old server drain once the new one is ready: so configuration is reloaded, and the program upgraded, under running
// builds and connected clients. If the file has changed the supervisor then also becomes the new program, with the same
// process number (handover.go). On SIGTERM it has the server drain and leaves: where the service manager ends the main
// process alone (KillMode=process) clients and builds are left in peace, as with upstream, whose workers are processes
// of their own. On SIGINT, and where no other process would be left over (as process 1), it stays until the server has
// ended; a second signal makes that soon, a third kills. A server that dies is replaced; one that does not answer is ended and
// replaced.
//
// Server and supervisor can each die without the other: a server whose control socket ends drains.
package supervisor
