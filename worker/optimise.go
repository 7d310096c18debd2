package worker

import (
	"context"
	"fmt"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
)

// optimiseStore hard-links equal files, telling how far it is.
func (c *conn) optimiseStore(ctx context.Context) error {
	return c.work(func() error {
		if c.forward != nil {
			return c.audited(ActionOptimise, nil, func() error { return c.forward.OptimiseStore(ctx) })
		}
		if c.o.Nested != nil {
			return nil // a store of which one sees a part is not optimised
		}
		return c.audited(ActionOptimise, nil, func() error { return c.optimiseAll(ctx) })
	}, c.one)
}

func (c *conn) optimiseAll(ctx context.Context) error {
	id := c.o.IDs.Next()
	c.tunnel.Start(id, activity.Error, activity.OptimiseStore, "", nil, 0)
	stats, err := c.o.Store.OptimiseAll(ctx, localstore.OptimiseProgress{
		Path: func(p storepath.Path) func() {
			id := c.o.IDs.Next()
			text := "optimising path '" + c.o.Store.Dir().Print(p) + "'"
			c.tunnel.Start(id, activity.Talkative, activity.Unknown, text, nil, 0)
			return func() { c.tunnel.Stop(id) }
		},
		Paths: func(done, expected uint64) {
			c.tunnel.Result(id, activity.Progress, numbers(done, expected, 0, 0))
		},
		Linked: func(size, blocks uint64) {
			c.tunnel.Result(id, activity.FileLinked, numbers(size, blocks))
		},
		Log: c.tunnel,
	})
	c.tunnel.Stop(id)
	if err == nil && !stats.Layers {
		c.tunnel.Message(activity.Info, fmt.Sprintf("%s freed by hard-linking %d files", renderSize(stats.BytesFreed), stats.FilesLinked))
	}
	return err
}

func numbers(values ...uint64) []activity.Field {
	fields := make([]activity.Field, len(values))
	for i, v := range values {
		fields[i] = activity.Number(v)
	}
	return fields
}

// renderSize writes a size as upstream does, from KiB upwards (libutil/util.cc,
// renderSize).
func renderSize(bytes uint64) string {
	size := float64(bytes) / 1024
	unit := 0
	for units := "KMGTPEZY"; size >= 1024 && unit < len(units)-1; unit++ {
		size /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGTPEZY"[unit])
}
