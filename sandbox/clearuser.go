package sandbox

import (
	"fmt"
	"time"
)

// ClearUser kills all processes of count users, from uid on, and returns when none is left. It is for the moment when a
// user is taken for a build: before anything is made that the user owns.
func (l *Launcher) ClearUser(uid, count uint32) error {
	if count <= 1 {
		return killUser(uid)
	}
	return killUsers(uid, count)
}

// killUsers kills all processes of a range of users. What can change among those ids can outrun it for a while, so it
// goes on until a look finds nobody.
func killUsers(first, count uint32) error {
	start := time.Now()
	for delay := 100 * time.Microsecond; ; delay = min(2*delay, 20*time.Millisecond) {
		found, err := usersIn(first, count)
		if err != nil {
			return fmt.Errorf("look for processes of uids %d to %d: %w", first, first+count-1, err)
		}
		if len(found) == 0 {
			return nil
		}
		for _, uid := range found {
			if _, err := sweepUser(uid); err != nil {
				return err
			}
		}
		if time.Since(start) > killLimit {
			return fmt.Errorf("kill processes of uids %d to %d: still alive: those of %v", first, first+count-1, found)
		}
		time.Sleep(delay)
	}
}
