//go:build !purego

package xz

// packets does what packetsGo does, in assembly.
func (m *model) packets(in *packed, size uint, buf []byte, w, stop, end uint) (uint, bool) {
	return packetsAsm(m, in, size, &buf[0], w, stop, end)
}

// packetsAsm needs overshoot bytes behind buf[end].
//
//go:noescape
func packetsAsm(m *model, in *packed, size uint, buf *byte, w, stop, end uint) (now uint, ok bool)
