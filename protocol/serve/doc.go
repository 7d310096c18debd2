// Package serve is the serve protocol, which "nix-store --serve" speaks on its
// standard input and output: ssh:// stores and Hydra use it. A [Version] is
// what both ends agreed on; a [Reader] and a [Writer] are bound to it and carry
// its types, most of which are the worker protocol's; a [Command] is a request.
// [Conn] is a client's end, [Serve] a server's over a [Handler].
//
// # Conversation
//
//	client                              server
//	magic, version               →
//	                             ←      magic, version
//	command, request             →
//	                             ←      reply
//
// There are no errors and no log: a server that fails at something says why on
// its standard error and hangs up. Facts are from libstore/serve-protocol.hh
// and nix-store.cc (opServe).
//
// Nothing here does I/O other than on the streams that it is handed, logs, or
// starts goroutines. Input is hostile: every length and count is bounded before
// anything is allocated.
package serve
