// Package daemon is the running daemon: it owns the listeners, decides who may
// connect and who is trusted, hands each connection to a worker with a context
// that ends when the client hangs up, and stops in order.
//
// A [Server] accepts; a peer's [Identity] is read from its socket and judged
// by an access policy; [Run] builds the store, the scheduler and
// the server from a configuration and joins them.
//
// # Limits
//
// [Limits] bound what clients take together: connections, and the memory of
// large requests, of which a worker takes what its client's request claims.
// Neither can be used up by one user, other than root and those who are
// trusted. A client that does not greet in time is hung up on.
//
// # Stopping
//
// When the context ends, the server stops accepting and hangs up on clients
// that wait for nothing. Requests under way have the drain time to finish;
// then they are cancelled, their builders die, and the server waits for them.
package daemon
