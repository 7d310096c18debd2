// Package transfer carries out requests to HTTP servers: what comes from and goes to binary caches, and what
// builtin:fetchurl downloads.
//
// One [Engine] serves all clients of a daemon. It owns the connections and the limit on how many there are. A [Request]
// says what to get or put; [Settings] are those of the client on whose behalf, so that two clients with different
// timeouts, certificates or credentials share an engine and only what may be shared: connections of equal settings.
// [Engine.Do] returns when the server has accepted the request; the contents of its [Response] are one stream even when
// the connection breaks and the rest is fetched by another.
//
// [Objects] are the files of one binary cache by their names, wherever it is; [HTTP] is one on a web server.
//
// # Failures
//
// An attempt that fails for a reason that may pass is made again, as often as the settings allow, after a delay that
// doubles and varies, and not before a time that the server asked for. What has been read already is not read again: the
// server is asked for the rest, if it can do that and the contents are not encoded. Every failure is an [*Error], with a
// [Kind] to decide by. Its text is upstream 2.34.8's (libstore/filetransfer.cc); what upstream takes from libcurl is
// libcurl's for the same condition, as far as Go's network stack tells conditions apart.
//
// # Trust
//
// Servers are strangers. Headers, redirections, encodings and error texts are bounded, and contents are never held
// whole. Credentials, from a URL, the netrc file or a request, go to the host that they are for and not where a server
// redirects to; they appear in no text. Only [Request.Files] opens files of this machine.
//
// # Limits
//
// A request counts against http-connections from its start until its contents are read or closed. Who holds one open
// while waiting for another may therefore wait forever.
package transfer
