package db

import (
	"errors"
	"unsafe"

	"modernc.org/libc"
	engine "modernc.org/sqlite/lib"
)

// joinedVFS is the name of SQLite's own interface to the system, changed in one way: what one commit adds to the
// write-ahead log goes there in few large writes, where SQLite makes two for each page, of 24 bytes and of 4096.
// Half the cost of a small commit is in those.
//
// The log is the same to the byte, and so is the moment: the last frame of a commit says that it is the last, and
// its write returns when all are written. Only after that does SQLite tell other readers that there are new frames.
// A process that dies before leaves what it may leave in any case, frames without an end, which count for nothing.
//
// It must not be used where SQLite writes frames before a commit, which it does when its cache is full
// (pragma cache_spill): held back, they could be written after their transaction was given up, over those of another
// process. So what is held must be followed by its continuation and by nothing else, or is dropped with an error.
const joinedVFS = "nixdaemon-joined"

const (
	frameHeaderSize = 24 // of the write-ahead log: page number, size of the database if the last of a commit, ...
	commitOffset    = 4  // of the latter, big-endian

	// heldMax is how much is held at a time: some thirty pages.
	heldMax = 128 << 10
)

// joinedVFSData is what we register: SQLite's structure with one field more.
type joinedVFSData struct {
	engine.Tsqlite3_vfs
	inner uintptr // *engine.Tsqlite3_vfs
}

// walFile stands behind SQLite's own data of an open write-ahead log.
type walFile struct {
	methods engine.Tsqlite3_io_methods // the file's, and first: so they lead here
	inner   uintptr                    // *engine.Tsqlite3_io_methods that ours replace

	buf    uintptr // heldMax bytes
	held   int64   // so many of them are to be written
	end    int64   // where in the file the last write ended
	commit int32   // not 0 if the last write was the header of a commit's last frame
}

// Go's view of the engine's function pointers.
type (
	openFunc     = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, outFlags uintptr) int32
	closeFunc    = func(tls *libc.TLS, file uintptr) int32
	transferFunc = func(tls *libc.TLS, file, buf uintptr, size int32, offset int64) int32
	truncateFunc = func(tls *libc.TLS, file uintptr, size int64) int32
	syncFunc     = func(tls *libc.TLS, file uintptr, flags int32) int32
	sizeFunc     = func(tls *libc.TLS, file, size uintptr) int32
)

// at gives access to the engine's memory, which Go's does not overlap and never moves.
func at[T any](address uintptr) *T { return *(**T)(unsafe.Pointer(&address)) }

// pointer makes a function that is no closure one of the engine's, function does the reverse.
func pointer[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&f)) }

func function[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&p)) }

// registerJoined makes name the interface that is based on inner, unless there is one of that name. The engine keeps it
// for the life of the process.
func registerJoined(name, inner string) error {
	tls := libc.NewTLS()
	defer tls.Close()
	if err := result(engine.Xsqlite3_initialize(tls)); err != nil {
		return err
	}
	innerName, err := libc.CString(inner)
	if err != nil {
		return err
	}
	defer libc.Xfree(tls, innerName)
	cName, err := libc.CString(name)
	if err != nil {
		return err
	}
	if engine.Xsqlite3_vfs_find(tls, cName) != 0 {
		libc.Xfree(tls, cName)
		return nil
	}
	found := engine.Xsqlite3_vfs_find(tls, innerName)
	data := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(joinedVFSData{})))
	if found == 0 || data == 0 {
		return errors.New("register interface of SQLite to the system: no memory, or nothing to base it on")
	}
	vfs := at[joinedVFSData](data)
	vfs.Tsqlite3_vfs = *at[engine.Tsqlite3_vfs](found)
	vfs.FszOsFile = int32(walFileOffset(vfs.FszOsFile) + unsafe.Sizeof(walFile{}))
	vfs.FpNext, vfs.FzName, vfs.inner = 0, cName, found
	vfs.FxOpen = pointer[openFunc](openJoined)
	return result(engine.Xsqlite3_vfs_register(tls, data, 0))
}

// walFileOffset is where our data of a file begin behind size bytes of SQLite's.
func walFileOffset(size int32) uintptr { return (uintptr(size) + 15) &^ 15 }

func openJoined(tls *libc.TLS, vfs, name, file uintptr, flags int32, outFlags uintptr) int32 {
	innerVFS := at[joinedVFSData](vfs).inner
	inner := at[engine.Tsqlite3_vfs](innerVFS)
	rc := function[openFunc](inner.FxOpen)(tls, innerVFS, name, file, flags, outFlags)
	if rc != engine.SQLITE_OK || flags&engine.SQLITE_OPEN_WAL == 0 {
		return rc
	}
	buf := libc.Xmalloc(tls, heldMax)
	if buf == 0 {
		return rc // it works without us
	}
	own := file + walFileOffset(inner.FszOsFile)
	original := at[engine.Tsqlite3_file](file).FpMethods
	w := at[walFile](own)
	*w = walFile{methods: *at[engine.Tsqlite3_io_methods](original), inner: original, buf: buf, end: -1}
	w.methods.FxClose = pointer[closeFunc](closeJoined)
	w.methods.FxRead = pointer[transferFunc](readJoined)
	w.methods.FxWrite = pointer[transferFunc](writeJoined)
	w.methods.FxTruncate = pointer[truncateFunc](truncateJoined)
	w.methods.FxSync = pointer[syncFunc](syncJoined)
	w.methods.FxFileSize = pointer[sizeFunc](sizeJoined)
	at[engine.Tsqlite3_file](file).FpMethods = own
	return rc
}

func walFileOf(file uintptr) (*walFile, *engine.Tsqlite3_io_methods) {
	w := at[walFile](at[engine.Tsqlite3_file](file).FpMethods)
	return w, at[engine.Tsqlite3_io_methods](w.inner)
}

func closeJoined(tls *libc.TLS, file uintptr) int32 {
	w, inner := walFileOf(file)
	libc.Xfree(tls, w.buf) // what is held belongs to no commit
	at[engine.Tsqlite3_file](file).FpMethods = w.inner
	return function[closeFunc](inner.FxClose)(tls, file)
}

// writeJoined holds what continues the last write, up to the last frame of a commit.
func writeJoined(tls *libc.TLS, file, buf uintptr, size int32, offset int64) int32 {
	w, inner := walFileOf(file)
	isHeader := size == frameHeaderSize
	commits := isHeader && *at[uint32](buf + commitOffset) != 0
	if offset != w.end || int64(size) > heldMax {
		if rc := w.settled(); rc != engine.SQLITE_OK {
			return rc
		}
		rc := function[transferFunc](inner.FxWrite)(tls, file, buf, size, offset)
		w.wrote(rc, offset+int64(size), commits)
		return rc
	}
	if w.held+int64(size) > heldMax {
		if rc := w.flush(tls, file); rc != engine.SQLITE_OK {
			return rc
		}
	}
	libc.Xmemcpy(tls, w.buf+uintptr(w.held), buf, libc.Tsize_t(size))
	w.held += int64(size)
	last := w.commit != 0 && !isHeader
	w.wrote(engine.SQLITE_OK, offset+int64(size), commits)
	if last {
		return w.flush(tls, file)
	}
	return engine.SQLITE_OK
}

func (w *walFile) wrote(rc int32, end int64, commits bool) {
	w.end, w.commit = end, 0
	if rc != engine.SQLITE_OK {
		w.end = -1
	} else if commits {
		w.commit = 1
	}
}

// flush writes what is held.
func (w *walFile) flush(tls *libc.TLS, file uintptr) int32 {
	size := w.held
	w.held = 0
	rc := function[transferFunc](at[engine.Tsqlite3_io_methods](w.inner).FxWrite)(tls, file, w.buf, int32(size), w.end-size)
	if rc != engine.SQLITE_OK {
		w.end = -1
	}
	return rc
}

// settled drops what is held, for what comes next is not its continuation: an error, which undoes the transaction.
func (w *walFile) settled() int32 {
	if w.held == 0 {
		return engine.SQLITE_OK
	}
	w.held, w.end = 0, -1
	return engine.SQLITE_IOERR_WRITE
}

func readJoined(tls *libc.TLS, file, buf uintptr, size int32, offset int64) int32 {
	w, inner := walFileOf(file)
	if rc := w.settled(); rc != engine.SQLITE_OK {
		return rc
	}
	return function[transferFunc](inner.FxRead)(tls, file, buf, size, offset)
}

func truncateJoined(tls *libc.TLS, file uintptr, size int64) int32 {
	w, inner := walFileOf(file)
	if rc := w.settled(); rc != engine.SQLITE_OK {
		return rc
	}
	return function[truncateFunc](inner.FxTruncate)(tls, file, size)
}

func syncJoined(tls *libc.TLS, file uintptr, flags int32) int32 {
	w, inner := walFileOf(file)
	if rc := w.settled(); rc != engine.SQLITE_OK {
		return rc
	}
	return function[syncFunc](inner.FxSync)(tls, file, flags)
}

func sizeJoined(tls *libc.TLS, file, size uintptr) int32 {
	w, inner := walFileOf(file)
	if rc := w.settled(); rc != engine.SQLITE_OK {
		return rc
	}
	return function[sizeFunc](inner.FxFileSize)(tls, file, size)
}
