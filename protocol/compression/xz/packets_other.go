//go:build !amd64 || purego

package xz

func (m *model) packets(in *packed, size uint, buf []byte, w, stop, end uint) (uint, bool) {
	return m.packetsGo(in, size, buf, w, stop, end)
}
