// Package worker serves one connection of the worker protocol: it decodes
// requests, decides what this client may do, and calls the store, the builder
// and the collector with plain types. [Serve] runs a connection to its end; a
// tunnel carries what happens meanwhile to the client as log frames.
//
// # One request
//
// A request is decoded fully unless it ends in a stream, then worked on, and
// exactly one "last" or "error" frame ends that; after "last" the reply is
// written. An error while decoding loses the position in the stream, so it is
// sent and the connection ends; an error while working is sent and the next
// request is read. A panic ends the connection and nothing else.
//
// # Trust
//
// What an untrusted client may not do is decided here, at the top of each
// handler, and nowhere else; what it may override is decided by package
// settings.
package worker
