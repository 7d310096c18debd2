package fstree

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

const (
	// mapFrom is the size from which mapping costs less than copying: unmapping has to be told to all processors.
	mapFrom = 128 << 10

	// mapWindow is how much is mapped at once, a multiple of any page's size.
	mapWindow = 8 << 20
)

// errNotMapped says that nothing was written, and that the file must be read.
var errNotMapped = errors.New("file cannot be mapped")

// copyMapped is copyBig without a copy. What the disk cannot deliver, or what is cut off meanwhile, is a fault of memory,
// which becomes an error.
func (dm *dumper) copyMapped(fd int, size int64) error {
	for offset := int64(0); offset < size; offset += mapWindow {
		if dm.ctx.Err() != nil {
			return context.Cause(dm.ctx)
		}
		data, err := unix.Mmap(fd, offset, int(min(mapWindow, size-offset)), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil && offset == 0 {
			return errNotMapped
		}
		if err == nil {
			err = errors.Join(dm.writeMapped(data), unix.Munmap(data))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (dm *dumper) writeMapped(data []byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch v := recover().(type) {
		case nil:
		case runtime.Error:
			if _, fault := v.(interface{ Addr() uintptr }); !fault {
				panic(v)
			}
			err = dm.wrap("reading file", unix.EIO)
		default:
			panic(v)
		}
	}()
	_, err = dm.out.Write(data)
	return err
}
