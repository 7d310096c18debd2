package sandbox

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ipcKind is one of the three kinds of System V objects, which outlive their processes and have no namespaces on macOS.
type ipcKind struct {
	// sysctl is the name of the list of them, operation what asks for the next one (sys/ipcs.h).
	sysctl    string
	operation uint32
	// size is that of the kernel's description, in bytes. It begins with a struct ipc_perm.
	size int
}

// ipcKinds are shared memory, message queues and semaphores: struct shmid_ds, msqid_ds and semid_ds of 64-bit processes,
// which are packed to four bytes.
var ipcKinds = [...]ipcKind{
	{"kern.sysv.ipcs.shm", 0x002, 76},
	{"kern.sysv.ipcs.msg", 0x200, 116},
	{"kern.sysv.ipcs.sem", 0x020, 72},
}

// ipcsCommand is struct IPCS_command of sys/ipcs.h.
type ipcsCommand struct {
	magic, operation, cursor, size uint32
	data                           unsafe.Pointer
}

// removeIPC removes the System V objects of a build user, all of whose processes have ended. Left behind they would be
// the next build's to find, and use up the kernel's few. What cannot be removed stays, as upstream.
func removeIPC(uid uint32) {
	remove := [...]func(id uint32){
		func(id uint32) { unix.Syscall(unix.SYS_SHMCTL, uintptr(id), unix.IPC_RMID, 0) },
		func(id uint32) { unix.Syscall(unix.SYS_MSGCTL, uintptr(id), unix.IPC_RMID, 0) },
		func(id uint32) { unix.Syscall6(unix.SYS_SEMCTL, uintptr(id), 0, unix.IPC_RMID, 0, 0, 0) },
	}
	for i, kind := range ipcKinds {
		for _, id := range ipcIDs(uid, kind.next) {
			remove[i](id)
		}
	}
}

func (k ipcKind) next(cursor uint32) (description []byte, after uint32, ok bool) {
	description = make([]byte, k.size)
	name := []byte(k.sysctl)
	c := ipcsCommand{magic: 1, operation: k.operation, cursor: cursor, size: uint32(k.size), data: unsafe.Pointer(&description[0])}
	size := unsafe.Sizeof(c)
	_, _, errno := unix.Syscall6(unix.SYS_SYSCTLBYNAME, uintptr(unsafe.Pointer(&name[0])), uintptr(len(name)),
		uintptr(unsafe.Pointer(&c)), uintptr(unsafe.Pointer(&size)), uintptr(unsafe.Pointer(&c)), size)
	return description, c.cursor, errno == 0
}
