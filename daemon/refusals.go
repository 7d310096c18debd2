package daemon

import (
	"sync"
	"time"
)

const (
	// mostRefusals is how many refused deeds of one user the audit trail lists in refusalTime; the rest is counted.
	mostRefusals = 60
	refusalTime  = time.Minute
	// mostRefused is how many users are told apart, who may have many identities in user namespaces.
	mostRefused = 1024
	// otherUsers are those beyond.
	otherUsers = "others"
)

// refusals keep whoever may do little from filling the audit trail with what they may not.
type refusals struct {
	// tell is told how many of a user's were left out, when their time is over.
	tell func(user string, leftOut uint64)
	time time.Duration

	mu     sync.Mutex
	users  map[string]*refusedUser
	closed bool
}

// refusedUser is somebody who was refused something not long ago.
type refusedUser struct {
	count uint64
	timer *time.Timer
}

func newRefusals(tell func(user string, leftOut uint64)) *refusals {
	return &refusals{tell: tell, time: refusalTime, users: make(map[string]*refusedUser)}
}

// admit tells whether one more is to be listed.
func (r *refusals) admit(user string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return true // nobody would tell of it later
	}
	u := r.users[user]
	if u == nil && len(r.users) >= mostRefused {
		user = otherUsers
		u = r.users[user]
	}
	if u == nil {
		u = new(refusedUser)
		u.timer = time.AfterFunc(r.time, func() { r.over(user, u) })
		r.users[user] = u
	}
	u.count++
	return u.count <= mostRefusals
}

// over begins anew for a user.
func (r *refusals) over(user string, u *refusedUser) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users[user] != u {
		return
	}
	delete(r.users, user)
	r.tellOf(user, u)
}

// tellOf is called with the mutex held, so that close waits for it.
func (r *refusals) tellOf(user string, u *refusedUser) {
	if u.count > mostRefusals {
		r.tell(user, u.count-mostRefusals)
	}
}

// close tells what is still untold.
func (r *refusals) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for user, u := range r.users {
		u.timer.Stop()
		r.tellOf(user, u)
	}
	clear(r.users)
}
