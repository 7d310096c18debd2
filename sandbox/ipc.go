package sandbox

import "encoding/binary"

// System V objects outlive their processes and have no namespaces on macOS. What the kernel tells of one begins with a
// struct ipc_perm.

// ipcPermSize is the size of struct ipc_perm.
const ipcPermSize = 24

// ipcOwner is who owns and who made an object, from its description.
func ipcOwner(description []byte) (uid, creator uint32) {
	return binary.NativeEndian.Uint32(description[0:]), binary.NativeEndian.Uint32(description[8:])
}

// ipcID is the number of the object at index, from its description. Objects without a key, which shmget and its kin
// cannot find, have one too.
func ipcID(index uint32, description []byte) uint32 {
	sequence := binary.NativeEndian.Uint16(description[18:])
	return uint32(sequence)<<16 | index&0xffff
}

// ipcIDs are the numbers of the objects that belong to uid. next describes the first object at or after a cursor, and
// returns the cursor behind it; it ends the list with false.
func ipcIDs(uid uint32, next func(cursor uint32) (description []byte, after uint32, ok bool)) []uint32 {
	var ids []uint32
	for cursor := uint32(0); ; {
		description, after, ok := next(cursor)
		// The kernel's cursor only grows; anything else would go on for ever.
		if !ok || after <= cursor || len(description) < ipcPermSize {
			return ids
		}
		if owner, creator := ipcOwner(description); owner == uid || creator == uid {
			ids = append(ids, ipcID(after-1, description))
		}
		cursor = after
	}
}
