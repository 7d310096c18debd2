package worker

import (
	"context"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/worker/settings"
)

// setOptions changes the connection's settings as the client wants, as far as
// it may have it. A second request adds to the first, as upstream's do.
func (c *conn) setOptions(context.Context) error {
	o, err := c.in.Options()
	if err != nil {
		return err
	}
	return c.work(func() error {
		wishes := clientOptions(o)
		s, warnings, err := c.sess.Settings.ApplyClient(wishes, c.o.Trusted)
		if c.o.Audit != nil {
			if changed := s.Privileged(c.sess.Settings, wishes); len(changed) > 0 {
				c.o.Audit(Privilege{Action: ActionOverride, Subject: changed})
			}
		}
		sess := *c.sess
		sess.Settings = s
		c.sess = &sess
		if c.forward != nil {
			c.forward.Follow(c.sess)
		}
		c.tunnel.setLevel(activity.Level(s.Verbosity))
		for _, w := range warnings {
			c.warning(w)
		}
		return err
	}, nil)
}

func (c *conn) warning(w settings.Warning) {
	switch {
	case w.BadValue:
		c.tunnel.warn(highlight(w.Text))
		return
	case w.Level == settings.LevelWarn:
		c.tunnel.warn(w.Text)
		return
	}
	c.tunnel.Message(activity.Level(w.Level), w.Text)
}

func clientOptions(o protocol.ClientOptions) settings.ClientOptions {
	out := settings.ClientOptions{
		KeepFailed: o.KeepFailed, KeepGoing: o.KeepGoing, TryFallback: o.Fallback,
		Verbosity: o.Verbosity, MaxBuildJobs: o.MaxJobs, MaxSilentTime: o.MaxSilentTime,
		VerboseBuild: o.BuildVerbosity, BuildCores: o.Cores, UseSubstitutes: o.Substitute,
		Overrides: make([]settings.NameValue, len(o.Overrides)),
	}
	for i, override := range o.Overrides {
		out.Overrides[i] = settings.NameValue(override)
	}
	return out
}
