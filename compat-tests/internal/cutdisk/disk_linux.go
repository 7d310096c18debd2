package cutdisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Available tells why there can be no such disk on this machine, nil if there can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	for _, file := range []string{"/dev/fuse", "/dev/loop-control"} {
		if f, err := os.OpenFile(file, os.O_RDWR, 0); err != nil {
			return err
		} else if err := f.Close(); err != nil {
			return err
		}
	}
	_, err := exec.LookPath("mkfs.ext4")
	return err
}

// Event is what the device was asked for: a write, or if Size is 0, a flush of its cache.
type Event struct {
	Offset, Size int64
	At           time.Time
	data         int64 // where in the file of data
}

// Flush tells that all earlier writes are durable from then on.
func (e *Event) Flush() bool { return e.Size == 0 }

// Disk is a mounted disk. Its methods may be called from any goroutine.
type Disk struct {
	dir    string
	image  *os.File // what the device holds
	base   string   // what it held in the beginning
	data   *os.File // of all writes, one after the other
	served chan error
	unloop func() error

	// Guards what follows and the end of data.
	mu     sync.Mutex
	events []Event
	end    int64
}

// New makes a disk of that many bytes with an empty file system, mounted at Dir with options of ext4's, "" for the usual.
// Everything lies in a directory below dir.
func New(dir string, size int64, options string) (_ *Disk, err error) {
	d := &Disk{dir: dir, base: filepath.Join(dir, "base"), served: make(chan error, 1)}
	for _, sub := range []string{"fuse", "mnt"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := d.format(size); err != nil {
		return nil, err
	}
	dev, err := mountFUSE(d.path("fuse"))
	if err != nil {
		return nil, err
	}
	s := &server{dev: dev, size: uint64(size), file: d}
	go func() { d.served <- errors.Join(s.serve(), unix.Close(dev)) }()
	device, unloop, err := attachLoop(filepath.Join(d.path("fuse"), fileName))
	if err != nil {
		return nil, errors.Join(err, unix.Unmount(d.path("fuse"), unix.MNT_DETACH))
	}
	d.unloop = unloop
	if err := mountExt4(device, d.Dir(), options); err != nil {
		return nil, errors.Join(err, unloop(), unix.Unmount(d.path("fuse"), unix.MNT_DETACH))
	}
	return d, nil
}

func (d *Disk) path(name string) string { return filepath.Join(d.dir, name) }

// Dir is where the file system is mounted.
func (d *Disk) Dir() string { return d.path("mnt") }

func (d *Disk) format(size int64) (err error) {
	if d.image, err = os.Create(d.path("image")); err != nil {
		return err
	}
	if d.data, err = os.Create(d.path("data")); err != nil {
		return err
	}
	if err := d.image.Truncate(size); err != nil {
		return err
	}
	// Inode tables stay unwritten, and so the image sparse.
	mkfs := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-i", "4096", "-E", "lazy_itable_init=1,lazy_journal_init=1", d.image.Name())
	if out, err := mkfs.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return copySparse(d.base, d.image.Name())
}

// attachLoop makes a block device of a file. It goes away once it is not in use and undone was called.
func attachLoop(file string) (device string, undo func() error, err error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", nil, err
	}
	defer control.Close()
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return "", nil, err
	}
	defer backing.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", nil, os.NewSyscallError("LOOP_CTL_GET_FREE", err)
		}
		device = "/dev/loop" + strconv.Itoa(n)
		loop, err := os.OpenFile(device, os.O_RDWR, 0)
		if err != nil {
			return "", nil, err
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: 4096, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return device, loop.Close, nil
		}
		loop.Close()
		if err != unix.EBUSY { // somebody else was faster
			return "", nil, os.NewSyscallError("LOOP_CONFIGURE", err)
		}
	}
}

func mountExt4(device, dir, options string) error {
	all := "noinit_itable" // the image stays as sparse as it is
	if options != "" {
		all += "," + options
	}
	return os.NewSyscallError("mount ext4", unix.Mount(device, dir, "ext4", unix.MS_NOATIME, all))
}

func (d *Disk) readAt(p []byte, off int64) error {
	_, err := d.image.ReadAt(p, off)
	return err
}

func (d *Disk) writeAt(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.data.WriteAt(p, d.end); err != nil {
		return err
	}
	d.events = append(d.events, Event{Offset: off, Size: int64(len(p)), At: time.Now(), data: d.end})
	d.end += int64(len(p))
	_, err := d.image.WriteAt(p, off)
	return err
}

func (d *Disk) flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, Event{At: time.Now()})
	return nil
}

// Position is how many events there were so far.
func (d *Disk) Position() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.events)
}

// Stop unmounts the disk and gives what was recorded up to then. Its files are still open to nobody.
func (d *Disk) Stop() (*Recording, error) {
	events := func() []Event {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.events
	}()
	// A process that was killed lets go of its files a moment after it is gone for all who look.
	err := unix.EBUSY
	for deadline := time.Now().Add(10 * time.Second); err == unix.EBUSY && time.Now().Before(deadline); {
		if e := unix.Unmount(d.Dir(), 0); e != unix.EBUSY {
			return d.stopped(events, e)
		}
		time.Sleep(time.Millisecond)
	}
	return d.stopped(events, err)
}

func (d *Disk) stopped(events []Event, err error) (*Recording, error) {
	err = errors.Join(os.NewSyscallError("unmount", err), d.unloop())
	// Whoever still has the disk in a mount namespace of its own finds it switched off.
	if e := unix.Unmount(d.path("fuse"), unix.MNT_FORCE|unix.MNT_DETACH); e != nil {
		return nil, errors.Join(err, e)
	}
	if err := errors.Join(err, <-d.served, d.image.Close()); err != nil {
		return nil, err
	}
	return &Recording{Events: events, base: d.base, data: d.data}, nil
}
