// Package cutdisk is a disk for tests whose power can be cut.
//
// A [Disk] is a block device with an ext4 file system: a loop device over the only file of a FUSE file system that
// a process of ours serves, see [ServeIfAsked]. So every write and every flush that the kernel's file system sends to
// its device passes through there, in order, and is recorded as an [Event]. A [Recording] then makes the image that
// the device would have held if the power had gone at any moment: all that was written before the last flush, and of
// what came after it anything: everything, nothing, or some of its blocks, as with a drive that had them in its cache.
//
// It needs root, /dev/fuse and loop devices; [Available] tells. Use it in a mount namespace of its own, so that
// nothing stays mounted however the process ends.
package cutdisk
