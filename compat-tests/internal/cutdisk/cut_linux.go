package cutdisk

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// blockSize is what a device writes whole or not at all.
const blockSize = 4096

// Recording is what happened to a disk. It is for one goroutine at a time.
type Recording struct {
	Events []Event

	base string   // the device up to the flush before event number durable
	data *os.File // of the writes

	durable int
}

// Loss says what becomes of the writes that no flush came after.
type Loss int

// What may happen to them. Of SomeLost each block has its own luck.
const (
	NothingLost Loss = iota
	AllLost
	SomeLost
)

func (l Loss) String() string { return [...]string{"nothing lost", "all lost", "some lost"}[l] }

// Cut makes the image of the device as it was when power went before event number at, which must not be less than in the
// call before. Luck decides for SomeLost.
func (r *Recording) Cut(at int, loss Loss, luck *rand.Rand, image string) error {
	if at < r.durable || at > len(r.Events) {
		return fmt.Errorf("cut at %d is not within %d and %d", at, r.durable, len(r.Events))
	}
	flushed := r.durable
	for i := r.durable; i < at; i++ {
		if r.Events[i].Flush() {
			flushed = i + 1
		}
	}
	if err := r.apply(r.base, r.durable, flushed, func() bool { return true }); err != nil {
		return err
	}
	r.durable = flushed
	if err := copySparse(image, r.base); err != nil {
		return err
	}
	return r.apply(image, flushed, at, func() bool {
		return loss == NothingLost || loss == SomeLost && luck.IntN(2) == 0
	})
}

// apply does the writes of a range of events, those blocks that are chosen.
func (r *Recording) apply(image string, from, to int, choose func() bool) (err error) {
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var block [blockSize]byte
	for _, e := range r.Events[from:to] {
		for off := int64(0); off < e.Size; off += blockSize {
			if !choose() {
				continue
			}
			b := block[:min(blockSize, e.Size-off)]
			if _, err := r.data.ReadAt(b, e.data+off); err != nil {
				return err
			}
			if _, err := f.WriteAt(b, e.Offset+off); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close lets go of the recording.
func (r *Recording) Close() error { return r.data.Close() }

// Mount mounts an image, which has the file system recover, and gives what undoes that.
func Mount(image, dir string) (unmount func() error, err error) {
	device, unloop, err := attachLoop(image)
	if err != nil {
		return nil, err
	}
	err = mountExt4(device, dir, "")
	if err = errors.Join(err, unloop()); err != nil {
		return nil, err
	}
	return func() error { return os.NewSyscallError("unmount", unix.Unmount(dir, 0)) }, nil
}

// copySparse copies a file without its holes.
func copySparse(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	for at := int64(0); ; {
		start, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil
		}
		if err != nil {
			return os.NewSyscallError("seek", err)
		}
		if at, err = unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE); err != nil {
			return os.NewSyscallError("seek", err)
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, start), io.NewSectionReader(in, start, at-start)); err != nil {
			return err
		}
	}
}
