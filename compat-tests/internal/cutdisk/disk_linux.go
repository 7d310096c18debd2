package cutdisk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
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
	dir    string // has what the device holds (image), held in the beginning (base), all writes (data) and events (log)
	unloop func() error

	server     *exec.Cmd
	complaints bytes.Buffer  // of the server
	position   *atomic.Int64 // which the server counts
}

// New makes a disk of that many bytes with an empty file system, mounted at Dir with options of ext4's, "" for the usual.
// Everything lies in a directory below dir.
func New(dir string, size int64, options string) (_ *Disk, err error) {
	d := &Disk{dir: dir}
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
	if err := d.startServer(dev, size); err != nil {
		return nil, errors.Join(err, d.unmountFUSE())
	}
	device, unloop, err := attachLoop(filepath.Join(d.path("fuse"), fileName))
	if err != nil {
		return nil, errors.Join(err, d.unmountFUSE(), d.awaitServer())
	}
	d.unloop = unloop
	if err := mountExt4(device, d.Dir(), options); err != nil {
		return nil, errors.Join(err, unloop(), d.unmountFUSE(), d.awaitServer())
	}
	return d, nil
}

// unmountFUSE ends the server. Whoever still has the disk in a mount namespace of its own finds it switched off.
func (d *Disk) unmountFUSE() error {
	return os.NewSyscallError("unmount fuse", unix.Unmount(d.path("fuse"), unix.MNT_FORCE|unix.MNT_DETACH))
}

func (d *Disk) path(name string) string { return filepath.Join(d.dir, name) }

// Dir is where the file system is mounted.
func (d *Disk) Dir() string { return d.path("mnt") }

func (d *Disk) format(size int64) error {
	image, err := os.Create(d.path("image"))
	if err != nil {
		return err
	}
	if err := errors.Join(image.Truncate(size), image.Close()); err != nil {
		return err
	}
	// Inode tables stay unwritten, and so the image sparse.
	mkfs := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-i", "4096", "-E", "lazy_itable_init=1,lazy_journal_init=1", d.path("image"))
	if out, err := mkfs.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return copySparse(d.path("base"), d.path("image"))
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

// Position is how many events there were so far.
func (d *Disk) Position() int { return int(d.position.Load()) }

// Stop unmounts the disk and gives what was recorded up to then. Its files are still open to nobody.
func (d *Disk) Stop() (*Recording, error) {
	position := d.Position()
	// A process that was killed lets go of its files a moment after it is gone for all who look.
	err := unix.EBUSY
	for deadline := time.Now().Add(10 * time.Second); err == unix.EBUSY && time.Now().Before(deadline); {
		if e := unix.Unmount(d.Dir(), 0); e != unix.EBUSY {
			return d.stopped(position, e)
		}
		time.Sleep(time.Millisecond)
	}
	return d.stopped(position, err)
}

func (d *Disk) stopped(position int, err error) (*Recording, error) {
	err = errors.Join(os.NewSyscallError("unmount", err), d.unloop())
	if e := d.unmountFUSE(); e != nil {
		return nil, errors.Join(err, e)
	}
	if err := errors.Join(err, d.awaitServer()); err != nil {
		return nil, err
	}
	events, err := readEvents(d.path("log"), position)
	if err != nil {
		return nil, err
	}
	data, err := os.Open(d.path("data"))
	if err != nil {
		return nil, err
	}
	return &Recording{Events: events, base: d.path("base"), data: data}, nil
}
