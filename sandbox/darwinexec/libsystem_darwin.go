package darwinexec

import (
	"syscall"
	_ "unsafe" // for go:linkname
)

//go:cgo_import_dynamic libc_posix_spawn posix_spawn "/usr/lib/libSystem.B.dylib"
//go:cgo_import_dynamic libc_posix_spawnattr_init posix_spawnattr_init "/usr/lib/libSystem.B.dylib"
//go:cgo_import_dynamic libc_posix_spawnattr_setflags posix_spawnattr_setflags "/usr/lib/libSystem.B.dylib"
//go:cgo_import_dynamic libc_posix_spawnattr_setbinpref_np posix_spawnattr_setbinpref_np "/usr/lib/libSystem.B.dylib"
//go:cgo_import_dynamic libc_sysctlbyname sysctlbyname "/usr/lib/libSystem.B.dylib"

// Where the functions are, set in libsystem_darwin.s.
var (
	spawnAddr               uintptr
	spawnattrInitAddr       uintptr
	spawnattrSetflagsAddr   uintptr
	spawnattrSetbinprefAddr uintptr
	sysctlbynameAddr        uintptr
)

// callC calls a function of the C library on a stack that is large enough for it. It is what golang.org/x/sys/unix
// calls, too.
//
//go:linkname callC syscall.syscall6
func callC(fn, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2 uintptr, errno syscall.Errno)

// call is for functions that return an error number, as posix_spawn and its kin do, or -1 and set errno. What the
// arguments point to stays where it is until it returns.
//
//go:uintptrescapes
func call(fn, a1, a2, a3, a4, a5, a6 uintptr) error {
	r, _, errno := callC(fn, a1, a2, a3, a4, a5, a6)
	switch {
	case errno != 0:
		return errno
	case int32(r) > 0:
		return syscall.Errno(r)
	}
	return nil
}
