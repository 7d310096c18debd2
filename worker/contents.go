package worker

import (
	"context"
	"fmt"
	"strings"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
)

const (
	refuseLogs         refusal = "you are not privileged to add logs"
	refuseSignatures   refusal = "you are not privileged to add so many signatures"
	refuseVerifyRepair refusal = "you are not privileged to repair paths"
)

// narFromPath answers with a bare NAR. What goes wrong in the middle of it can
// only be told by ending the connection: a client that has seen the "last"
// frame reads archive, nothing else. So validity is asked before that frame,
// where upstream asks after it.
func (c *conn) narFromPath(ctx context.Context) error {
	p, err := c.in.StorePath()
	if err != nil {
		return err
	}
	return c.work(func() error {
		if c.o.Nested != nil {
			if err := c.o.Nested.MayDump(p); err != nil {
				return err
			}
		}
		_, err := c.o.Store.PathInfo(ctx, p)
		return err
	}, func() {
		if err := c.o.Store.Dump(ctx, p, c.out); err != nil {
			c.breakOff(fmt.Errorf("send contents of '%s': %w", c.o.Store.Dir().Print(p), err))
		}
	})
}

func (c *conn) verifyStore(ctx context.Context) error {
	checkContents, err := c.in.Bool()
	if err != nil {
		return err
	}
	repair, err := c.in.Bool()
	if err != nil {
		return err
	}
	var found bool
	return c.work(func() (err error) {
		action := ActionVerify
		if repair {
			action = ActionRepair
		}
		return c.audited(action, nil, func() error {
			if repair && !c.o.Trusted {
				return refuseVerifyRepair
			}
			found, err = c.o.Store.Verify(ctx, localstore.VerifyOptions{
				CheckContents: checkContents, Quick: c.sess.Settings.QuickVerify, Repair: repair, RepairPath: c.repairPath, Log: c.tunnel,
				Describe: describe,
			})
			return err
		})
	}, func() { c.out.Bool(found) })
}

// describe gives an error as upstream logs it at that level.
func describe(level activity.Level, err error) string {
	text, _ := ErrorText(err)
	if rest, ok := strings.CutPrefix(text, red+"error:"); ok && level == activity.Warn {
		return magenta + "warning:" + rest
	}
	return text
}

// repairPath makes a path anew by building its deriver in repair mode.
func (c *conn) repairPath(ctx context.Context, p storepath.Path) error {
	return c.o.Builder.RepairPath(ctx, c.sess, p)
}
