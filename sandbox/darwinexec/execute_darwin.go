package darwinexec

import (
	"syscall"
	"unsafe"
)

// execute replaces this process by the job's program.
func execute(j *Job) error {
	if j.Architecture == Any {
		return syscall.Exec(j.Path, j.Args, j.Env)
	}
	if j.Architecture == ARM64 {
		clearAffinity()
	}
	return spawnHere(j)
}

// clearAffinity lets a process that Rosetta translates execute a program that is not translated. Where there is no
// such setting, there is nothing to clear: arch(1) does not look at the answer either.
func clearAffinity() {
	name := []byte("kern.curproc_arch_affinity\x00")
	var affinity int32
	call(sysctlbynameAddr, uintptr(unsafe.Pointer(&name[0])), 0, 0, uintptr(unsafe.Pointer(&affinity)), unsafe.Sizeof(affinity), 0)
}

// spawnSetExec is POSIX_SPAWN_SETEXEC of spawn.h: replace the calling process.
const spawnSetExec = 0x0040

// spawnHere executes with a preference for an architecture, which execve(2) has no place for.
func spawnHere(j *Job) error {
	cpu, err := j.Architecture.cpuType()
	if err != nil {
		return err
	}
	path, err := syscall.BytePtrFromString(j.Path)
	if err != nil {
		return err
	}
	args, err := syscall.SlicePtrFromStrings(j.Args)
	if err != nil {
		return err
	}
	env, err := syscall.SlicePtrFromStrings(j.Env)
	if err != nil {
		return err
	}
	var attributes uintptr // posix_spawnattr_t, which the library allocates
	if err := call(spawnattrInitAddr, uintptr(unsafe.Pointer(&attributes)), 0, 0, 0, 0, 0); err != nil {
		return err
	}
	if err := call(spawnattrSetflagsAddr, uintptr(unsafe.Pointer(&attributes)), spawnSetExec, 0, 0, 0, 0); err != nil {
		return err
	}
	// How many of the one preference were taken is not of interest.
	var taken uintptr
	if err := call(spawnattrSetbinprefAddr, uintptr(unsafe.Pointer(&attributes)), 1,
		uintptr(unsafe.Pointer(&cpu)), uintptr(unsafe.Pointer(&taken)), 0, 0); err != nil {
		return err
	}
	err = call(spawnAddr, 0, uintptr(unsafe.Pointer(path)), 0, uintptr(unsafe.Pointer(&attributes)),
		uintptr(unsafe.Pointer(&args[0])), uintptr(unsafe.Pointer(&env[0])))
	if err == nil {
		// With spawnSetExec there is no return from success.
		err = syscall.ENOEXEC
	}
	return err
}
