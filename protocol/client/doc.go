// Package client speaks the worker protocol as a client. A [Client] is a pool
// of connections to one daemon that any number of goroutines share: each call
// borrows a connection for one request, gives it back when the stream is in
// step, and drops it when it is not. A connection that broke while it lay idle
// is opened anew without the caller noticing.
//
// It serves tests, benchmarks, and stores that are themselves daemons.
package client
