package db

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"zombiezen.com/go/sqlite"
)

// maxReaders bounds the reading connections, readerCache the page cache of each, in KiB.
// A foreign commit empties that cache, ours does too; it earns its memory when many questions come at once.
const (
	maxReaders  = 4
	readerCache = 8 << 10
)

// pool lends reading connections, most recently used first, so that few are ever opened under light load.
type pool struct {
	db    *DB
	slots chan struct{} // one element per connection that is lent

	mu     sync.Mutex
	idle   []*conn // guarded by mu
	closed bool    // guarded by mu
}

func (p *pool) init(db *DB) {
	p.db = db
	p.slots = make(chan struct{}, maxReaders)
}

// read runs f with a connection of the pool and repeats it while the database is busy.
func (db *DB) read(ctx context.Context, f func(*conn) error) error {
	c, err := db.pool.get(ctx)
	if err != nil {
		return err
	}
	defer db.pool.put(c)
	if err = f(c); err != nil && isBusy(err) {
		err = db.retryBusy(ctx, func() error { return f(c) })
	}
	return db.explain(err)
}

func (p *pool) get(ctx context.Context) (*conn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	p.mu.Lock()
	closed := p.closed
	var c *conn
	if n := len(p.idle); n > 0 && !closed {
		c = p.idle[n-1]
		p.idle = p.idle[:n-1]
	}
	p.mu.Unlock()
	var err error
	if closed {
		err = ErrClosed
	} else if c == nil {
		c, err = p.open(ctx)
	}
	if err != nil {
		<-p.slots
	}
	return c, err
}

func (p *pool) open(ctx context.Context) (*conn, error) {
	flags := sqlite.OpenReadWrite
	if p.db.opts.ReadOnly {
		flags = sqlite.OpenReadOnly
	}
	var c *conn
	err := p.db.retryBusy(ctx, func() (err error) { c, err = openConn(p.db.uri, flags); return err })
	if err == nil {
		_, err = c.pragma(fmt.Sprintf("cache_size = -%d", readerCache))
	}
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", p.db.file, err)
	}
	c.names = &nameCache{}
	return c, nil
}

func (p *pool) put(c *conn) {
	p.mu.Lock()
	p.idle = append(p.idle, c)
	p.mu.Unlock()
	<-p.slots
}

// close waits for the lent connections to come back.
func (p *pool) close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	for range maxReaders {
		p.slots <- struct{}{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, c := range p.idle {
		errs = append(errs, c.close())
	}
	p.idle = nil
	for range maxReaders {
		<-p.slots
	}
	return errors.Join(errs...)
}
