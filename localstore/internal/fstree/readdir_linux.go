package fstree

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Offsets within struct linux_dirent64.
const (
	direntReclen = 16
	direntType   = 18
	direntName   = 19
)

// parseDirents reads getdents64's records; the names of one buffer share one allocation.
func parseDirents(buf []byte, out []entry) []entry {
	all := string(buf)
	for at := 0; at+direntName <= len(buf); {
		size := int(binary.NativeEndian.Uint16(buf[at+direntReclen:]))
		if size < direntName || at+size > len(buf) {
			break
		}
		length := bytes.IndexByte(buf[at+direntName:at+size], 0)
		if length > 0 {
			name := all[at+direntName : at+direntName+length]
			if name != "." && name != ".." {
				kind := uint32(buf[at+direntType]) << 12 // DT_REG is S_IFREG >> 12, and so on
				out = append(out, entry{name: name, ino: binary.NativeEndian.Uint64(buf[at:]), kind: kind & unix.S_IFMT})
			}
		}
		at += size
	}
	return out
}
