// Package peer is one interface over stores that other programs serve: daemons
// of this machine and of others. [Open] gives a [Store] for a store reference,
// whose parameters are a [Config].
//
// Three kinds of reference lead to one. "ssh-ng://" and "unix://" (and the word
// "daemon") speak the worker protocol, over ssh and over a socket; "ssh://"
// speaks the serve protocol, which knows less: what it does not know is an
// [Unsupported].
//
// # Connections
//
// A Store opens connections when it needs them, up to the parameter
// max-connections, which is 1 unless given; each call has one for itself while
// it lasts, and waits for one if all are in use. The reader that NAR gives holds
// its connection until it is closed, so that a goroutine that asks something
// else meanwhile may wait for itself. A connection that broke while nothing was
// asked is opened anew; one that breaks in the middle of a call makes the call
// fail with an error that is not a [protocol.Error], which is how the other
// side's refusals are told.
//
// # Trust
//
// What the other side says is bounded but not believed: whoever takes a path
// from it checks hash, size, references and signatures.
package peer
