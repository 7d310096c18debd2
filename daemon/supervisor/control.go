package supervisor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What a server says.
const (
	sayReady    = "ready"    // it serves
	sayPatience = "patience" // it needs more time, before it serves or after it should have ended
	sayStatus   = "status"   // and a text for people
	sayAlive    = "alive"    // the answer to orderAlive
	sayDraining = "draining" // the answer to orderDrain: nobody is accepted any more; and how many clients are left
)

// What a server is told. The end of the stream is orderDrain.
const (
	orderDrain  = "drain"  // accept nobody, end when the last client has gone
	orderCancel = "cancel" // end now
	orderAlive  = "alive?" // answer with sayAlive
)

// maxLine bounds a message.
const maxLine = 4096

// variable holds, in the server's environment, the number of listening sockets, which come after the control socket,
// the supervisor's process number and, if the server is to take another's place, takesOver.
const variable = "_NIXDAEMON_SUPERVISED"

// takesOver is the last word of variable for a server that takes the place of one that serves.
const takesOver = "next"

// firstPassed is the number of the first descriptor that a process is started with beyond standard error.
const firstPassed = 3

// Control is a server's end of the control socket. The zero value, of a process without a supervisor, says nothing and
// hears nothing.
type Control struct {
	conn   *net.UnixConn
	parent int // who started us
	next   bool
	mu     sync.Mutex
}

// Orders are what a server does when it is told.
type Orders struct {
	// Drain has the server accept nobody, at once, and end when its last client has gone. It gives the number of clients
	// that are left. It may be called more than once.
	Drain func() (clients int)
	// Cancel ends the server, whatever it does.
	Cancel func()
	// Alive returns when the server has shown that it is able to serve.
	Alive func()
}

// Inherited gives what a supervisor has started this process with: the control socket and the sockets to listen on.
// Without a supervisor both are nil. The variable is removed, so that builders and hooks do not see it.
func Inherited() (*Control, []net.Listener, error) {
	value, ok := os.LookupEnv(variable)
	if !ok {
		return nil, nil, nil
	}
	os.Unsetenv(variable)
	var n, parent int
	if _, err := fmt.Sscanf(value, "%d %d", &n, &parent); err != nil || n < 1 {
		return nil, nil, fmt.Errorf("bad value '%s' of variable %s", value, variable)
	}
	file := passed(0, "control socket")
	c, err := net.FileConn(file) // works on a copy
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, nil, fmt.Errorf("open control socket: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.New("open control socket: it is of another kind")
	}
	var listeners []net.Listener
	for i := range n {
		// Were the one that is copied left open, clients would still connect when the copy is closed, and wait for ever.
		file := passed(1+i, "listening socket")
		l, err := net.FileListener(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, nil, fmt.Errorf("open listening socket: %w", err)
		}
		listeners = append(listeners, l)
	}
	return &Control{conn: conn, parent: parent, next: strings.HasSuffix(value, " "+takesOver)}, listeners, nil
}

// passed is a descriptor that the process was started with.
func passed(i int, name string) *os.File { return os.NewFile(uintptr(firstPassed+i), name) }

// Ready says that clients are served.
func (c *Control) Ready() { c.say(sayReady) }

// Patience asks for time.
func (c *Control) Patience() { c.say(sayPatience) }

// Status tells people what the server does, in one line.
func (c *Control) Status(text string) {
	c.say(sayStatus + " " + strings.ReplaceAll(text[:min(len(text), maxLine/2)], "\n", " "))
}

// say drops what cannot be said: a server without a supervisor drains.
func (c *Control) say(line string) {
	if c == nil || c.conn == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A supervisor that does not listen shall not hold up clients.
	c.conn.SetWriteDeadline(time.Now().Add(sayLimit))
	io.WriteString(c.conn, line+"\n")
}

// sayLimit is how long a message may take.
const sayLimit = time.Second

// Obey carries out orders until the supervisor has gone, and then the last: to drain. Close ends it, too.
func (c *Control) Obey(o Orders) {
	for lines := newLines(c.conn); lines.Scan(); {
		switch lines.Text() {
		case orderDrain:
			c.say(sayDraining + " " + strconv.Itoa(o.Drain()))
		case orderCancel:
			o.Cancel()
		case orderAlive:
			o.Alive()
			c.say(sayAlive)
		}
	}
	o.Drain()
}

// Supervisor is the process number of the supervisor, 0 when it has died.
func (c *Control) Supervisor() int {
	// An orphan is somebody else's child.
	if pid := os.Getppid(); pid == c.parent {
		return pid
	}
	return 0
}

// Orphaned tells whether there was a supervisor, which has gone.
func (c *Control) Orphaned() bool { return c != nil && c.conn != nil && c.Supervisor() == 0 }

// TakesOver tells whether another server goes on if this one ends before it is ready.
func (c *Control) TakesOver() bool { return c != nil && c.next }

// Close hangs up.
func (c *Control) Close() error {
	if c == nil || c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

func newLines(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 256), maxLine)
	return lines
}
