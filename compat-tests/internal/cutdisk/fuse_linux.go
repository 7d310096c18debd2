package cutdisk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Requests of the kernel that one file needs (linux/fuse.h).
const (
	fuseLookup      = 1
	fuseForget      = 2
	fuseGetattr     = 3
	fuseSetattr     = 4
	fuseOpen        = 14
	fuseRead        = 15
	fuseWrite       = 16
	fuseStatfs      = 17
	fuseRelease     = 18
	fuseFsync       = 20
	fuseFlush       = 25
	fuseInit        = 26
	fuseInterrupt   = 36
	fuseDestroy     = 38
	fuseBatchForget = 42
)

const (
	fuseMajor, fuseMinor = 7, 31

	flagBigWrites = 1 << 5
	flagMaxPages  = 1 << 22
	openDirectIO  = 1 // no page cache between the loop device and us

	maxPages = 256
	maxWrite = maxPages * 4096

	rootNode, fileNode = 1, 2
	fileName           = "disk"
)

type inHeader struct {
	Len, Opcode            uint32
	Unique, Node           uint64
	UID, GID, PID, Padding uint32
}

type initIn struct{ Major, Minor, MaxReadahead, Flags uint32 }

type initOut struct {
	Major, Minor, MaxReadahead, Flags uint32
	MaxBackground, Congestion         uint16
	MaxWrite, TimeGran                uint32
	MaxPages, MapAlignment            uint16
	Unused                            [8]uint32
}

type fuseAttr struct {
	Ino, Size, Blocks, Atime, Mtime, Ctime                                    uint64
	AtimeNs, MtimeNs, CtimeNs, Mode, Nlink, UID, GID, Rdev, BlockSize, Flags_ uint32
}

type entryOut struct {
	Node, Generation, EntryValid, AttrValid uint64
	EntryValidNs, AttrValidNs               uint32
	Attr                                    fuseAttr
}

type attrOut struct {
	Valid            uint64
	ValidNs, Padding uint32
	Attr             fuseAttr
}

type openOut struct {
	Handle         uint64
	Flags, Padding uint32
}

// ioIn begins both a read and a write; a write's data follows.
type ioIn struct {
	Handle, Offset  uint64
	Size, IOFlags   uint32
	LockOwner       uint64
	Flags, Padding_ uint32
}

type writeOut struct{ Size, Padding uint32 }

type statfsOut struct {
	Blocks, Free, Available, Files, FilesFree    uint64
	BlockSize, NameLength, FragmentSize, Padding uint32
	Spare                                        [6]uint32
}

// server answers the kernel's requests about one file, one after the other.
type server struct {
	dev  int // of /dev/fuse
	size uint64
	file interface {
		readAt(p []byte, off int64) error
		writeAt(p []byte, off int64) error
		flush() error
	}
}

// mountFUSE mounts the file system; who reads dev serves it.
func mountFUSE(dir string) (dev int, err error) {
	dev, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("open /dev/fuse", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0,default_permissions,max_read=%d", dev, maxWrite)
	if err := unix.Mount("cutdisk", dir, "fuse.cutdisk", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME, options); err != nil {
		return -1, errors.Join(os.NewSyscallError("mount fuse", err), unix.Close(dev))
	}
	return dev, nil
}

// serve answers until the file system is unmounted.
func (s *server) serve() error {
	// What this thread writes cleans the pages that the disk's users have made dirty: it should not wait for their number
	// to fall, nor for memory that would come from writing them (PR_SET_IO_FLUSHER in prctl(2)). Where that is not
	// allowed only a machine without memory to spare will notice.
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0)
	buf := make([]byte, maxWrite+4096)
	for {
		n, err := unix.Read(s.dev, buf)
		switch err {
		case nil:
		case unix.EINTR, unix.EAGAIN, unix.ENOENT:
			continue
		case unix.ENODEV:
			return nil
		default:
			return os.NewSyscallError("read /dev/fuse", err)
		}
		if err := s.answer(buf[:n]); err != nil {
			return err
		}
	}
}

func (s *server) answer(request []byte) error {
	var h inHeader
	size, err := binary.Decode(request, binary.NativeEndian, &h)
	if err != nil {
		return fmt.Errorf("short request of %d bytes", len(request))
	}
	if h.Opcode == fuseForget || h.Opcode == fuseBatchForget || h.Opcode == fuseInterrupt {
		return nil
	}
	reply, err := s.reply(&h, request[size:])
	var code int32
	if errno := unix.Errno(0); errors.As(err, &errno) {
		code, reply = -int32(errno), nil
	} else if err != nil {
		code, reply = -int32(unix.EIO), nil
	}
	var out bytes.Buffer
	for _, field := range []any{uint32(16), code, h.Unique} {
		binary.Write(&out, binary.NativeEndian, field)
	}
	switch body := reply.(type) {
	case nil:
	case []byte:
		out.Write(body)
	default:
		binary.Write(&out, binary.NativeEndian, body)
	}
	binary.NativeEndian.PutUint32(out.Bytes(), uint32(out.Len()))
	_, err = unix.Write(s.dev, out.Bytes())
	if err == unix.ENOENT { // it was interrupted
		return nil
	}
	return os.NewSyscallError("write /dev/fuse", err)
}

// reply gives the body of the answer: a struct, bytes, or nil.
func (s *server) reply(h *inHeader, body []byte) (any, error) {
	switch h.Opcode {
	case fuseInit:
		var in initIn
		if _, err := binary.Decode(body, binary.NativeEndian, &in); err != nil {
			return nil, unix.EINVAL
		}
		return initOut{
			Major: fuseMajor, Minor: fuseMinor, MaxReadahead: in.MaxReadahead, Flags: in.Flags & (flagBigWrites | flagMaxPages),
			MaxBackground: 64, Congestion: 48, MaxWrite: maxWrite, TimeGran: 1, MaxPages: maxPages,
		}, nil
	case fuseLookup:
		if h.Node != rootNode || string(bytes.TrimRight(body, "\x00")) != fileName {
			return nil, unix.ENOENT
		}
		return entryOut{Node: fileNode, Generation: 1, EntryValid: 3600, AttrValid: 3600, Attr: s.attr(fileNode)}, nil
	case fuseGetattr, fuseSetattr:
		return attrOut{Valid: 3600, Attr: s.attr(h.Node)}, nil
	case fuseOpen:
		return openOut{Flags: openDirectIO}, nil
	case fuseRead, fuseWrite:
		return s.transfer(h, body)
	case fuseFsync:
		return nil, s.file.flush()
	case fuseStatfs:
		return statfsOut{BlockSize: 4096, NameLength: 255, FragmentSize: 4096}, nil
	case fuseFlush, fuseRelease, fuseDestroy:
		return nil, nil
	}
	return nil, unix.ENOSYS
}

func (s *server) transfer(h *inHeader, body []byte) (any, error) {
	var in ioIn
	n, err := binary.Decode(body, binary.NativeEndian, &in)
	if err != nil || in.Offset > s.size || uint64(in.Size) > s.size-in.Offset {
		return nil, unix.EINVAL
	}
	if h.Opcode == fuseRead {
		data := make([]byte, in.Size)
		return data, s.file.readAt(data, int64(in.Offset))
	}
	data := body[n:]
	if len(data) != int(in.Size) {
		return nil, unix.EINVAL
	}
	return writeOut{Size: in.Size}, s.file.writeAt(data, int64(in.Offset))
}

func (s *server) attr(node uint64) fuseAttr {
	if node == rootNode {
		return fuseAttr{Ino: rootNode, Mode: unix.S_IFDIR | 0o755, Nlink: 2, BlockSize: 4096}
	}
	return fuseAttr{Ino: fileNode, Mode: unix.S_IFREG | 0o600, Nlink: 1, Size: s.size, Blocks: s.size / 512, BlockSize: 4096}
}
