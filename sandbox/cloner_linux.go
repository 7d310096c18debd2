package sandbox

import (
	"runtime"
	"sync"

	"nixdaemon/sandbox/internal/child"
)

// cloner is a thread that does nothing but clone: builders die with it, so it lives as long as the launcher.
// The zero value is ready.
type cloner struct {
	running sync.WaitGroup

	// Guarded by mu. requests is closed by close alone.
	mu       sync.Mutex
	requests chan cloneRequest
}

type cloneRequest struct {
	image *child.Image
	flags uintptr
	reply chan<- forkReply
}

func (c *cloner) start(m *child.Image, flags uintptr) (int, error) {
	reply := make(chan forkReply, 1)
	c.thread() <- cloneRequest{m, flags, reply}
	r := <-reply
	return r.pid, r.err
}

func (c *cloner) thread() chan<- cloneRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.requests == nil {
		requests := make(chan cloneRequest)
		c.requests = requests
		c.running.Go(func() {
			// Never unlocked, so the thread ends with the goroutine and not before.
			runtime.LockOSThread()
			for r := range requests {
				pid, err := r.image.Start(r.flags)
				r.reply <- forkReply{pid, err}
			}
		})
	}
	return c.requests
}

func (c *cloner) close() {
	c.mu.Lock()
	if c.requests != nil {
		close(c.requests)
		c.requests = nil
	}
	c.mu.Unlock()
	c.running.Wait()
}
