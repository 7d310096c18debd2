// Package serving answers the serve protocol (package serve) for a store: it is
// what "nix-store --serve" does. [Serve] has one conversation; its [Options] are
// a worker.Store and a worker.Builder, be they of this machine's store or of a
// daemon that requests are forwarded to.
//
// Whoever starts the command is believed: it has no more rights than they do,
// and the daemon behind it decides about those. Nothing is told to the client
// but replies; what happens meanwhile, and why a conversation ends, goes to a
// log that ends up on the command's standard error.
package serving
