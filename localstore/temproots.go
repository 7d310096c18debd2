package localstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol/storepath"
)

// TempRoots keep what one connection works with from being collected. They are written to a file of the directory
// temproots, which any collector reads: full store paths, each ended by a NUL byte, in a file that is locked for as
// long as it counts. While a collector runs it is also told over its socket, and a path is safe once it has answered.
type TempRoots struct {
	store *Store

	// Nil until there is a root. Changed with mu held.
	open atomic.Pointer[os.File]

	// Serialises Add and Close, and guards all fields below.
	mu     sync.Mutex
	file   *os.File // the same as open
	handle uint64   // epoch of the handle in whose directory the file is
	known  map[storepath.Path]struct{}
	conn   net.Conn // to the collector; nil for none
	ack    [maxToldAtOnce]byte
	closed bool
}

const (
	// maxKnown bounds what is remembered to avoid writing a root twice, which would do no harm.
	maxKnown = 1 << 17

	// maxToldAtOnce is how many roots are sent to a collector before its answers are read.
	maxToldAtOnce = 64

	// maxPID is above every process id (the kernel's PID_MAX_LIMIT).
	maxPID = 1 << 22

	// gcSocketName is where a running collector listens, within the state directory.
	gcSocketName = "gc-socket/socket"

	// gcRetry is how long to wait for a collector that holds the lock but does not listen yet, or no longer.
	gcRetry = 100 * time.Millisecond
)

// tempNames gives out names for the files. Upstream names them by process id, and every release of it must be able to
// read the name as an integer of 32 bits; ours are above all process ids.
type tempNames struct{ last atomic.Uint32 }

func (n *tempNames) next() string {
	const span = 1<<31 - maxPID
	// Far apart from process to process, and from name to name.
	number := (uint32(os.Getpid())*40503 + n.last.Add(1)*7919) % span
	return strconv.FormatUint(uint64(maxPID+number), 10)
}

// NewTempRoots gives an empty set of roots. Close it; as long as it is empty it costs nothing.
func (s *Store) NewTempRoots() *TempRoots {
	t := &TempRoots{store: s}
	s.rootsMu.Lock()
	defer s.rootsMu.Unlock()
	s.roots[t] = struct{}{}
	return t
}

// Add makes roots of the paths, valid or not. When it returns no collector can miss them.
func (t *TempRoots) Add(ctx context.Context, paths ...storepath.Path) error {
	if t.store.opts.ReadOnly {
		return nil
	}
	h := t.store.acquire()
	defer h.release()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return errors.New("add temporary root: roots are closed")
	}
	if err := t.prepare(h); err != nil {
		return err
	}
	var buf [256]byte
	text := buf[:0]
	var fresh []storepath.Path
	for _, p := range paths {
		if _, known := t.known[p]; !known {
			text = append(append(append(append(text, t.store.opts.StoreDir...), '/'), p.Base()...), 0)
			fresh = append(fresh, p)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := t.record(ctx, h, text, fresh); err != nil {
		return err
	}
	t.remember(fresh)
	return nil
}

func (t *TempRoots) remember(paths []storepath.Path) {
	if t.known == nil || len(t.known) > maxKnown {
		t.known = make(map[storepath.Path]struct{})
	}
	for _, p := range paths {
		t.known[p] = struct{}{}
	}
}

// record writes the roots down where no collector that starts later can miss them, and tells the one that runs. In this
// order: between the answer of one collector and the writing another could have come and gone.
func (t *TempRoots) record(ctx context.Context, h *handle, text []byte, fresh []storepath.Path) error {
	if _, err := t.file.Write(text); err != nil {
		return fmt.Errorf("write temporary root: %w", err)
	}
	if t.store.tellOwn(h, fresh) {
		return nil
	}
	for {
		if ok, err := h.gc.none(); ok || err != nil {
			// The next collector is another one.
			t.hangUp()
			return err
		}
		err := t.tell(ctx, fresh)
		if err == nil {
			return nil
		}
		t.hangUp()
		if !isGone(err) {
			return fmt.Errorf("tell the garbage collector of a root: %w", err)
		}
		if err := sleep(ctx, gcRetry); err != nil {
			return err
		}
	}
}

// note writes a root down and tells nobody.
func (t *TempRoots) note(p storepath.Path) error {
	h := t.store.acquire()
	defer h.release()
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.known[p]; known {
		return nil
	}
	if err := t.prepare(h); err != nil {
		return err
	}
	if _, err := t.file.WriteString(t.store.opts.StoreDir.Print(p) + "\x00"); err != nil {
		return fmt.Errorf("write temporary root: %w", err)
	}
	t.remember([]storepath.Path{p})
	return nil
}

// isGone tells whether a collector has ended, or has not begun to listen: then its lock is asked for again.
func isGone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tell sends the roots to the running collector, which answers each once it will not delete it any more.
func (t *TempRoots) tell(ctx context.Context, paths []storepath.Path) error {
	if t.conn == nil {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(t.store.opts.StateDir, gcSocketName))
		if err != nil {
			return err
		}
		t.conn = conn
	}
	conn := t.conn
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			t.hangUp() // it is of no use to anybody else
		}
	}()
	for len(paths) > 0 {
		n := min(len(paths), maxToldAtOnce)
		var lines strings.Builder
		for _, p := range paths[:n] {
			lines.WriteString(t.store.opts.StoreDir.Print(p) + "\n")
		}
		if _, err := io.WriteString(conn, lines.String()); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, t.ack[:n]); err != nil {
			return err
		}
		if bytes.Count(t.ack[:n], []byte{'1'}) != n {
			return fmt.Errorf("unexpected answer %q", t.ack[:n])
		}
		paths = paths[n:]
	}
	return nil
}

func (t *TempRoots) hangUp() {
	if t.conn != nil {
		t.conn.Close()
		t.conn = nil
	}
}

// prepare opens the file if there is none, or if its directory was replaced: then with all roots that it had.
func (t *TempRoots) prepare(h *handle) error {
	if t.file != nil && (t.handle == h.epoch || t.inPlace()) {
		t.handle = h.epoch
		return nil
	}
	file, err := t.create()
	if err != nil {
		return err
	}
	if old := t.file; old != nil {
		_, err := io.Copy(file, io.NewSectionReader(old, 0, 1<<62))
		if err = errors.Join(err, old.Close()); err != nil {
			return errors.Join(fmt.Errorf("move temporary roots: %w", err), file.Close())
		}
		t.hangUp()
	}
	t.file, t.handle = file, h.epoch
	t.open.Store(file)
	return nil
}

// inPlace tells whether the file still has its name.
func (t *TempRoots) inPlace() bool {
	open, err := t.file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(t.file.Name())
	return err == nil && os.SameFile(open, named)
}

func (t *TempRoots) create() (*os.File, error) {
	for {
		path := filepath.Join(t.store.opts.tempRootsDir(), t.store.temps.next())
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("create temporary roots file: %w", err)
		}
		// A collector may come between: it takes an unlocked file for a dead process's, unlinks it and marks it.
		// Shared, since collectors before 2.6 wait for a shared lock of their own once they cannot have an exclusive one.
		ours, err := pathlock.TryFlock(file, pathlock.Shared)
		if ours && err == nil {
			var stale bool
			if stale, err = pathlock.IsStale(file); err == nil && !stale {
				return file, nil
			}
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return nil, fmt.Errorf("lock temporary roots file: %w", err)
		}
	}
}

// Close drops the roots. A second call does nothing.
func (t *TempRoots) Close() error {
	t.store.rootsMu.Lock()
	delete(t.store.roots, t)
	t.store.rootsMu.Unlock()
	// Whoever looks into the store when a client is done finds no lock file of what it added.
	h := t.store.acquire()
	h.short.expire()
	h.release()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.hangUp()
	if t.file == nil {
		return nil
	}
	err := os.Remove(t.file.Name())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, t.file.Close())
	t.file = nil
	return err
}

// paths reads the roots back.
func (t *TempRoots) paths() ([]storepath.Path, error) {
	// Not under mu: an Add that waits for the collector must not keep it waiting.
	file := t.open.Load()
	if file == nil {
		return nil, nil
	}
	text, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<62))
	if errors.Is(err, os.ErrClosed) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []storepath.Path
	for root := range strings.SplitSeq(string(text), "\x00") {
		if root == "" {
			continue
		}
		p, err := t.store.opts.StoreDir.Parse(root)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// TempRootPaths gives the temporary roots of this process, sorted. A collector that holds gc.lock asks once and from
// then on hears of new ones over its socket.
func (s *Store) TempRootPaths() ([]storepath.Path, error) {
	s.rootsMu.Lock()
	all := make([]*TempRoots, 0, len(s.roots))
	for t := range s.roots {
		all = append(all, t)
	}
	s.rootsMu.Unlock()
	var out []storepath.Path
	for _, t := range all {
		paths, err := t.paths()
		if err != nil {
			return nil, fmt.Errorf("read temporary roots: %w", err)
		}
		out = append(out, paths...)
	}
	return storepath.SortUnique(out), nil
}
