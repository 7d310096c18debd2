package worker

import (
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/activity/jsonlog"
)

// logJSON has everything that the client may see written as JSON, too, if that
// is wanted (libutil/logging.cc, applyJSONLogger). That it cannot be is
// something that the client is told, no more.
func (c *conn) logJSON() {
	if c.o.JSONLog == nil || c.o.Nested != nil {
		return
	}
	file, err := c.o.JSONLog()
	if err != nil {
		c.tunnel.ignored(err)
		return
	}
	c.tunnel.file = file
	c.tunnel.also = jsonlog.New(file, func(err error) {
		c.tunnel.ignored(err)
		c.tunnel.warn("disabling JSON logger due to write errors")
	})
}

// ignored tells of an error that has no consequences.
func (t *tunnel) ignored(err error) {
	t.Message(activity.Error, red+"error (ignored):"+normal+" "+highlight(err.Error()))
}

// close ends what else the tunnel writes to.
func (t *tunnel) close() {
	if t.file != nil {
		t.file.Close()
	}
}
