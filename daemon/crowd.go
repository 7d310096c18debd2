package daemon

import (
	"fmt"
	"math"
	"sync"
)

// Limits bound what all clients together take. Zero values are no limits.
type Limits struct {
	// Connections is how many there may be at once. The last sixteenth is
	// kept for those who are trusted, so that others cannot lock them out.
	Connections int
	// PerUser is how many a user may have who is neither trusted nor root.
	PerUser int
	// Memory is what the requests under way may claim together, in bytes,
	// beyond wire.FreeClaim for each. A user who is neither trusted nor root
	// gets at most half of it.
	Memory int64
}

// Defaults where the configuration does not say.
const (
	mostConnections = 4096
	// filesPerConnection is what a connection needs when it works: its socket,
	// lock and temporary root files, what it reads or writes, a builder's log.
	filesPerConnection = 4
	mostMemory         = 1 << 30
)

// defaultLimits are those for a process that may open so many files.
func defaultLimits(files uint64) Limits {
	n := int(min(mostConnections, max(64, files/filesPerConnection)))
	return Limits{Connections: n, PerUser: max(1, n/4), Memory: mostMemory}
}

// over takes what the configuration says, which is 0 where it says nothing.
func (l Limits) over(connections, perUser uint, memory uint64) Limits {
	if connections != 0 {
		l.Connections = int(min(connections, math.MaxInt32))
		l.PerUser = max(1, l.Connections/4)
	}
	if perUser != 0 {
		l.PerUser = int(min(perUser, math.MaxInt32))
	}
	if memory != 0 {
		l.Memory = int64(min(memory, math.MaxInt64))
	}
	return l
}

// CrowdedError says that there are too many connections for one more.
type CrowdedError struct {
	// User is who has too many, or "" if all together have.
	User string
	// Limit is how many there may be.
	Limit int
}

func (e *CrowdedError) Error() string {
	if e.User == "" {
		return fmt.Sprintf("refused a connection: there are %d, see 'max-connections'", e.Limit)
	}
	return fmt.Sprintf("refused a connection of user '%s', who has %d, see 'max-connections-per-user'", e.User, e.Limit)
}

// crowd counts what the connected clients take.
type crowd struct {
	limits Limits

	mu     sync.Mutex
	count  int
	memory int64
	users  map[uint32]*taken
}

// taken is what one user takes.
type taken struct {
	connections int
	memory      int64
}

func newCrowd(l Limits) *crowd { return &crowd{limits: l, users: make(map[uint32]*taken)} }

// guest is one client in a crowd, and the ledger of its requests.
type guest struct {
	c *crowd
	// free of the limits for one user.
	free bool
	uid  uint32
	user *taken
}

// enter lets a client in, who must leave, or refuses it with a *CrowdedError.
func (c *crowd) enter(p Peer) (*guest, error) {
	g := &guest{c: c, free: p.Trusted || p.Known && p.UID == 0, uid: p.UID}
	c.mu.Lock()
	defer c.mu.Unlock()
	most := c.limits.Connections
	if !g.free {
		most -= most / 16
	}
	if c.limits.Connections > 0 && c.count >= most {
		return nil, &CrowdedError{Limit: c.count}
	}
	if g.user = c.users[g.uid]; g.user == nil {
		g.user = &taken{}
	}
	if !g.free && c.limits.PerUser > 0 && g.user.connections >= c.limits.PerUser {
		return nil, &CrowdedError{User: p.User, Limit: g.user.connections}
	}
	c.count++
	g.user.connections++
	c.users[g.uid] = g.user
	return g, nil
}

// leave forgets the client. All memory has been given back.
func (g *guest) leave() {
	g.c.mu.Lock()
	defer g.c.mu.Unlock()
	g.c.count--
	g.user.connections--
	if g.user.connections == 0 {
		delete(g.c.users, g.uid)
	}
}

// Take is part of wire.Ledger.
func (g *guest) Take(n int64) bool {
	g.c.mu.Lock()
	defer g.c.mu.Unlock()
	if most := g.c.limits.Memory; most > 0 {
		if n > most-g.c.memory || !g.free && n > most/2-g.user.memory {
			return false
		}
	}
	g.c.memory += n
	g.user.memory += n
	return true
}

// Give is part of wire.Ledger.
func (g *guest) Give(n int64) {
	g.c.mu.Lock()
	defer g.c.mu.Unlock()
	g.c.memory -= n
	g.user.memory -= n
}
