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
// Data that follows a request comes in frames (1.23, 1.25), as one archive
// without frames, or piece by piece when asked for (1.21). Whatever becomes of
// the work, the stream then stands behind the data; where that cannot be had,
// as behind an archive that is none, the connection ends after the error.
//
// # Slow clients
//
// Log frames are queued and written by a goroutine of the tunnel, so that who
// logs does not wait for the client's socket: the same build may have other
// clients. The queue is bounded; see tunnel.
//
// # Trust
//
// What an untrusted client may not do is decided here, at the top of each
// handler, and nowhere else; what it may override is decided by package
// settings.
package worker
