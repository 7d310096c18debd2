package build

import (
	"errors"

	"nixdaemon/protocol/activity"
	"nixdaemon/sandbox"
	"nixdaemon/sandbox/buildusers"
)

func (a *attempt) takeUser() (err error) {
	if a.o.Users == nil {
		return nil
	}
	a.user, err = a.o.Users.Try(a.ctx)
	if !errors.Is(err, buildusers.ErrAllInUse) {
		return err
	}
	id := a.s.ids.Next()
	a.j.feed.Start(id, activity.Warn, activity.BuildWaiting,
		textf("waiting for a free build user ID for '%s'", a.dir.Print(a.j.drvPath)).Coloured(), nil, 0)
	a.j.hasBegun()
	defer a.j.feed.Stop(id)
	a.user, err = a.o.Users.Acquire(a.ctx)
	return err
}

// uid and gid are who the builder runs as, -1 for the daemon's own.
func (a *attempt) owner() (uid, gid int) {
	if a.user == nil {
		return -1, -1
	}
	return int(a.user.UID), int(a.user.GID)
}

func (a *attempt) sandboxUser() *sandbox.User {
	if a.user == nil {
		return nil
	}
	return &sandbox.User{UID: a.user.UID, GID: a.user.GID, Groups: a.user.Groups}
}
