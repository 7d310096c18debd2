package board

import (
	"slices"
	"sync/atomic"
	"time"

	"nixdaemon/daemon/status"
	"nixdaemon/protocol"
	"nixdaemon/worker"
)

// Client is a connection on a board.
type Client struct {
	board *Board
	who   status.Connection

	op    atomic.Uint64 // the present operation, 0 for none
	since atomic.Int64  // when it began, in nanoseconds since 1970
	count atomic.Uint64
}

var _ worker.Observer = (*Client)(nil)

// Connect puts a client on the board until its Disconnected is called. Of who its Operation and what goes with it are
// left to the client's requests.
func (b *Board) Connect(who status.Connection) *Client {
	c := &Client{board: b, who: who}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clients[c] = struct{}{}
	return c
}

// OpBegan notes what the client waits for.
func (c *Client) OpBegan(op protocol.Op) {
	c.since.Store(time.Now().UnixNano())
	c.count.Add(1)
	c.op.Store(uint64(op))
}

// OpEnded notes that the client waits for nothing.
func (c *Client) OpEnded(protocol.Op, error) { c.op.Store(0) }

// Disconnected takes the client off the board.
func (c *Client) Disconnected(error) {
	c.board.mu.Lock()
	defer c.board.mu.Unlock()
	delete(c.board.clients, c)
}

func (c *Client) status() status.Connection {
	s := c.who
	s.Operations = c.count.Load()
	if op := protocol.Op(c.op.Load()); op != 0 {
		began := time.Unix(0, c.since.Load())
		s.Operation, s.Began = op.String(), &began
	}
	return s
}

// connections lists the clients, the oldest first.
func (b *Board) connections() []status.Connection {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]status.Connection, 0, len(b.clients))
	for c := range b.clients {
		list = append(list, c.status())
	}
	slices.SortFunc(list, func(a, b status.Connection) int { return a.Since.Compare(b.Since) })
	return list
}
