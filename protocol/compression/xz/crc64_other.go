//go:build !amd64 || purego

package xz

// fold leaves everything to [hash/crc64].
func fold(sum uint64, p []byte) (uint64, []byte) { return sum, p }
