// Package forward serves a store that is another daemon's: each request of a
// client becomes the same request to that daemon.
//
// A [Backend] belongs to one connection of ours and has one connection of its
// own behind it, since settings, temporary roots and trust are the business of
// a connection. It is a [worker.Store], [worker.Builder], [worker.Collector]
// and [worker.Substituter] at once, and a [worker.Forwarder]. How the daemon is
// reached is [Options].Dial: a unix socket, or whatever else carries the worker
// protocol. A [Served] is the same for a machine that speaks the serve protocol
// alone.
//
// # Who decides
//
// Package worker refuses what our client may not do before anything is
// forwarded, and the client's settings are forwarded as far as it may have
// them. The other daemon decides by what it thinks of us. What it logs meanwhile
// goes to our client.
//
// # Endings
//
// When our client goes away its context ends, and the connection behind it is
// closed in the middle of whatever is under way: nothing else stops a daemon's
// work. A connection that breaks while nothing is asked is opened anew with
// the next request; the temporary roots that it held are gone then.
//
// # Data
//
// Archives and logs are streams throughout. Only where the two protocol
// versions disagree on the form of an upload is it kept in between, in an
// unlinked file.
package forward
