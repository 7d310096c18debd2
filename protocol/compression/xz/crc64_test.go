package xz

import (
	"encoding/binary"
	"hash/crc64"
	"math/rand/v2"
	"testing"
)

// TestCRC64 sums up data of many lengths, at many addresses and in several pieces.
func TestCRC64(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	data := make([]byte, 70_000)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	for n := range 5000 {
		p := data[random.IntN(100):]
		p = p[:min(n, random.IntN(len(p)))]
		c, cut := new(crc), random.IntN(len(p)+1)
		if n%100 == 0 {
			p, cut = data, random.IntN(len(data))
		}
		c.Write(p[:cut])
		c.Write(p[cut:])
		if got, want := binary.BigEndian.Uint64(c.Sum(nil)), crc64.Checksum(p, ecma); got != want {
			t.Fatalf("%d and %d bytes: %x, want %x", cut, len(p)-cut, got, want)
		}
	}
}

func BenchmarkCRC64(b *testing.B) {
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		update(0, data)
	}
}
