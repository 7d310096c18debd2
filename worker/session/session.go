// Package session says on whose behalf something is done: a [Session] is one
// connection's identity, trust, settings, log and temporary roots, in the form
// in which the worker hands it to the layers that build, substitute and add.
package session

import (
	"context"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// Roots keeps store paths from being collected for as long as the session
// lives.
type Roots interface {
	// Add makes temporary roots of the paths, valid or not. It returns once no
	// collector, ours or a foreign one, can miss them.
	Add(ctx context.Context, paths ...storepath.Path) error
}

// Session is who asks and how they want it done. It is read-only to those who
// receive it; the worker makes a new one when the client changes its settings.
type Session struct {
	// User is the peer's name, or its decimal id; slots are shared fairly
	// between users.
	User string
	// Client tells this connection from the user's others.
	Client uint64
	// Trusted is true for members of trusted-users.
	Trusted bool
	// Settings are the daemon's, as overridden by the client.
	Settings *settings.Settings
	// Log receives what the client shall see.
	Log activity.Sink
	// Roots are the connection's temporary roots.
	Roots Roots
}
