package build

import "slices"

// slots shares a number of build slots among users and their clients. It is pure bookkeeping, guarded by its owner.
//
// A job may stand in the queues of several clients. Whichever turn comes first starts it, and that client is charged.
type slots struct {
	total   int // at most so many at once
	running int
	users   ring[*userSlots]
}

type userSlots struct {
	name    string
	clients ring[*clientSlots]
}

// clientSlots is one client's share.
type clientSlots struct {
	user    *userSlots
	id      uint64
	max     int // the client's max-jobs
	running int
	queue   []*job // first come, first served; those no longer queued are skipped
	holds   int    // subscriptions and running builds that need this entry
}

// client finds or makes the entry of a client and notes its present limit.
// Every call is paired with one of release.
func (s *slots) client(user string, id uint64, limit int) *clientSlots {
	u := s.users.find(func(u *userSlots) bool { return u.name == user })
	if u == nil {
		u = &userSlots{name: user}
		s.users.add(u)
	}
	c := u.clients.find(func(c *clientSlots) bool { return c.id == id })
	if c == nil {
		c = &clientSlots{user: u, id: id}
		u.clients.add(c)
	}
	c.max = limit
	c.holds++
	return c
}

// release forgets a client that nothing needs any more, and its user with the last client.
func (s *slots) release(c *clientSlots) {
	c.holds--
	if c.holds > 0 {
		return
	}
	c.user.clients.remove(c)
	if len(c.user.clients.items) == 0 {
		s.users.remove(c.user)
	}
}

func (c *clientSlots) push(j *job) { c.queue = append(c.queue, j) }

// next takes the job whose turn it is and charges its client; nil when no slot is free or nobody may use it.
func (s *slots) next() *job {
	if s.running >= s.total {
		return nil
	}
	for range s.users.items {
		u := s.users.turn()
		for range u.clients.items {
			if j := s.take(u.clients.turn()); j != nil {
				return j
			}
		}
	}
	return nil
}

func (s *slots) take(c *clientSlots) *job {
	for len(c.queue) > 0 && !c.queue[0].waitsForSlot() {
		c.queue[0] = nil
		c.queue = c.queue[1:]
	}
	if len(c.queue) == 0 || c.running >= c.max {
		return nil
	}
	j := c.queue[0]
	c.queue[0] = nil
	c.queue = c.queue[1:]
	s.charge(c, j)
	return j
}

func (s *slots) charge(c *clientSlots, j *job) {
	c.running++
	c.holds++
	s.running++
	j.charged = c
}

// takeNow charges a client for a job outside its queue; false if no slot is free. Who is in a queue cannot take one that
// is free.
func (s *slots) takeNow(c *clientSlots, j *job) bool {
	if s.running >= s.total || c.running >= c.max {
		return false
	}
	s.charge(c, j)
	return true
}

// done gives the slot of a job back.
func (s *slots) done(j *job) {
	c := j.charged
	j.charged = nil
	c.running--
	s.running--
	s.release(c)
}

// ring gives each of its items a turn.
type ring[T comparable] struct {
	items []T
	at    int
}

func (r *ring[T]) add(item T) { r.items = append(r.items, item) }

func (r *ring[T]) remove(item T) {
	i := slices.Index(r.items, item)
	if i < 0 {
		return
	}
	r.items = slices.Delete(r.items, i, i+1)
	if i < r.at {
		r.at--
	}
}

func (r *ring[T]) turn() T {
	if r.at >= len(r.items) {
		r.at = 0
	}
	item := r.items[r.at]
	r.at++
	return item
}

func (r *ring[T]) find(match func(T) bool) T {
	for _, item := range r.items {
		if match(item) {
			return item
		}
	}
	var none T
	return none
}
