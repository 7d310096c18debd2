package cutdisk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// serverEnv makes a process that calls [ServeIfAsked] a disk's server. It says how many bytes the disk has.
const serverEnv = "CUTDISK_SERVER"

// Descriptors of a server.
const (
	fuseFD     = 3 + iota
	positionFD // memory that it shares with the disk's user
	imageFD
	dataFD
	logFD
)

// ServeIfAsked serves a disk and ends the process, if this was started for that, and else does nothing. A program that
// uses [New] calls it before anything else: its disks are served by processes of the same program, which hold nothing
// that could wait for the disk. A process that uses the disk holds much: a fork that waits for the disk keeps the Go
// runtime from collecting garbage, and all its goroutines wait for that.
func ServeIfAsked() {
	text := os.Getenv(serverEnv)
	if text == "" {
		return
	}
	size, err := strconv.ParseUint(text, 10, 63)
	if err == nil {
		err = serveDisk(size)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "serve disk:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveDisk(size uint64) error {
	position, err := mapPosition(positionFD)
	if err != nil {
		return err
	}
	r := &recorder{position: position, image: os.NewFile(imageFD, "image"), data: os.NewFile(dataFD, "data"), log: os.NewFile(logFD, "log")}
	s := &server{dev: fuseFD, size: size, file: r}
	return errors.Join(s.serve(), r.image.Close(), r.data.Close(), r.log.Close())
}

// mapPosition maps the number of events.
func mapPosition(fd int) (*atomic.Int64, error) {
	memory, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return (*atomic.Int64)(unsafe.Pointer(&memory[0])), nil
}

// newPosition makes memory for the number of events.
func newPosition() (*os.File, *atomic.Int64, error) {
	fd, err := unix.MemfdCreate("position", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "position")
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	position, err := mapPosition(fd)
	return f, position, err
}

// recorder is the server's side of a disk.
type recorder struct {
	image, data, log *os.File
	position         *atomic.Int64
	end              int64 // of data
}

func (r *recorder) readAt(p []byte, off int64) error {
	_, err := r.image.ReadAt(p, off)
	return err
}

func (r *recorder) writeAt(p []byte, off int64) error {
	if _, err := r.data.WriteAt(p, r.end); err != nil {
		return err
	}
	if err := r.note(Event{Offset: off, Size: int64(len(p)), At: time.Now(), data: r.end}); err != nil {
		return err
	}
	r.end += int64(len(p))
	_, err := r.image.WriteAt(p, off)
	return err
}

func (r *recorder) flush() error { return r.note(Event{At: time.Now()}) }

// loggedEvent is how events are written down.
type loggedEvent struct{ Offset, Size, At, Data int64 }

func (r *recorder) note(e Event) error {
	var b [32]byte
	if _, err := binary.Encode(b[:], binary.NativeEndian, loggedEvent{e.Offset, e.Size, e.At.UnixNano(), e.data}); err != nil {
		return err
	}
	if _, err := r.log.Write(b[:]); err != nil {
		return err
	}
	r.position.Add(1)
	return nil
}

// readEvents reads the first n events of a log.
func readEvents(file string, n int) ([]Event, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	logged := make([]loggedEvent, n)
	if err := binary.Read(io.LimitReader(f, int64(n)*32), binary.NativeEndian, logged); err != nil {
		return nil, fmt.Errorf("read %d events: %w", n, err)
	}
	events := make([]Event, n)
	for i, l := range logged {
		events[i] = Event{Offset: l.Offset, Size: l.Size, At: time.Unix(0, l.At), data: l.Data}
	}
	return events, nil
}

// startServer starts the process that serves what is mounted through dev, which it takes.
func (d *Disk) startServer(dev int, size int64) error {
	fuse := os.NewFile(uintptr(dev), "/dev/fuse")
	defer fuse.Close()
	files := []*os.File{fuse}
	defer func() {
		for _, f := range files[1:] {
			f.Close()
		}
	}()
	memory, position, err := newPosition()
	if err != nil {
		return err
	}
	files, d.position = append(files, memory), position
	for _, name := range []string{"image", "data", "log"} {
		f, err := os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	d.server = exec.Command(exe)
	d.server.Env = append(os.Environ(), serverEnv+"="+strconv.FormatInt(size, 10))
	d.server.ExtraFiles, d.server.Stderr = files, &d.complaints
	d.server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return d.server.Start()
}

// awaitServer waits for a server whose file system was unmounted.
func (d *Disk) awaitServer() error {
	if err := d.server.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(d.complaints.String()))
	}
	return nil
}
