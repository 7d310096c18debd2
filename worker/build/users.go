package build

import (
	"errors"
	"os"
	"runtime"

	"nixdaemon/protocol/activity"
	"nixdaemon/sandbox"
	"nixdaemon/sandbox/buildusers"
	"nixdaemon/worker/settings"
)

// userRequest is what the settings come to; ok is false for builds that run as the daemon does
// (unix/user-lock.cc, useBuildUsers).
func (a *attempt) userRequest() (r buildusers.Request, ok bool) {
	r.Group = a.set.BuildUsersGroup
	ranged := a.set.AutoAllocateUIDs && (runtime.GOOS == "linux" || r.Group != "")
	if a.o.Users == nil || r.Group == "" && !ranged {
		return r, false
	}
	if ranged {
		r.Range = &buildusers.Range{First: a.set.StartID, IDs: a.set.IDCount, Count: 1, Namespace: a.isolated}
		if a.isolated && a.usesUIDRange() {
			r.Range.Count = uidRange
		}
	}
	return r, true
}

// takeUser waits for a build user, and makes sure that nothing is left of whoever had it before: what the build will
// own is not for them.
func (a *attempt) takeUser() (err error) {
	r, ok := a.userRequest()
	if ok {
		if r.Range != nil {
			if err := a.set.ExperimentalFeatures.Require(settings.AutoAllocateUIDs); err != nil {
				return err
			}
		}
		if a.user, err = a.o.Users.Try(a.ctx, r); errors.Is(err, buildusers.ErrAllInUse) {
			err = a.waitForUser(r)
		}
		if err != nil {
			return err
		}
	}
	if err := a.clearCgroup(); err != nil {
		return err
	}
	if a.user != nil {
		if err := a.o.Launcher.ClearUser(a.user.UID, a.user.Count); err != nil {
			a.stuck = true
			return err
		}
	}
	return a.makeCgroup()
}

func (a *attempt) waitForUser(r buildusers.Request) (err error) {
	id := a.s.ids.Next()
	a.j.feed.Start(id, activity.Warn, activity.BuildWaiting,
		textf("waiting for a free build user ID for '%s'", a.dir.Print(a.j.drvPath)).Coloured(), nil, 0)
	a.j.hasBegun()
	defer a.j.feed.Stop(id)
	a.s.hold(a.j, "build user")
	defer a.s.hold(a.j, "")
	a.user, err = a.o.Users.Acquire(a.ctx, r)
	return err
}

// releaseUser keeps a user that has processes still, which could not be killed, from all further builds.
func (a *attempt) releaseUser() {
	if a.user == nil {
		return
	}
	if a.stuck {
		a.user.Withhold()
		a.o.Log.Error().Uint32("uid", a.user.UID).Uint32("count", a.user.Count).Int("daemon", os.Getpid()).
			Msg("processes of a build user could not be killed: no build gets this user until the daemon is restarted")
	}
	a.complain("release build user", a.user.Release())
}

// owner is who the builder runs as, -1 for the daemon's own.
func (a *attempt) owner() (uid, gid int) {
	if a.user == nil {
		return -1, -1
	}
	return int(a.user.UID), int(a.user.GID)
}

// idCount is how many ids the builder's user has, beginning with its own.
func (a *attempt) idCount() uint32 {
	if a.user == nil {
		return 1
	}
	return a.user.Count
}

func (a *attempt) sandboxUser() *sandbox.User {
	if a.user == nil {
		return nil
	}
	return &sandbox.User{UID: a.user.UID, GID: a.user.GID, Groups: a.user.Groups}
}
