package twosum

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"math/rand/v2"
	"testing"
)

// check writes two texts in pieces and compares with what each digest makes of its own alone.
func check(t *testing.T, p, q []byte, pieces []int) {
	t.Helper()
	wantP, wantQ := sha256.Sum256(p), sha256.Sum256(q)
	a, b := sha256.New(), sha256.New()
	for _, n := range pieces {
		i, j := min(n, len(p)), min(n, len(q))
		Write(a, b, p[:i], q[:j])
		p, q = p[i:], q[j:]
	}
	Write(a, b, p, q)
	if !bytes.Equal(a.Sum(nil), wantP[:]) || !bytes.Equal(b.Sum(nil), wantQ[:]) {
		t.Fatalf("%x and %x, want %x and %x", a.Sum(nil), b.Sum(nil), wantP, wantQ)
	}
}

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// TestWrite compares with crypto/sha256, for all lengths around a few blocks and at every alignment of the data.
func TestWrite(t *testing.T) {
	data := random(1, 70_000)
	for n := range 400 {
		check(t, data[n%17:n%17+n], data[1000+n%13:1000+n%13+400-n], nil)
		check(t, data[n%16:n%16+n], data[1000+n%3:1000+n%3+n], []int{64, 1, 63, 128})
	}
	check(t, data, data[1:], []int{64, 64 * 1000})
	check(t, data[:0], data, nil)
}

// TestWriteOthers: digests of other kinds are written to as well.
func TestWriteOthers(t *testing.T) {
	data := random(2, 1000)
	for _, make := range []func() hash.Hash{md5.New, sha256.New224, sha512.New} {
		a, b := make(), sha256.New()
		Write(a, b, data, data[100:])
		alone, want := make(), sha256.Sum256(data[100:])
		alone.Write(data)
		if !bytes.Equal(a.Sum(nil), alone.Sum(nil)) || !bytes.Equal(b.Sum(nil), want[:]) {
			t.Errorf("%T is not what it is alone", a)
		}
	}
}

// TestFast: on processors with the instructions both digests are written to at once. If crypto/sha256 gave its state in
// another form, nothing would be wrong, but slow.
func TestFast(t *testing.T) {
	if !available() {
		t.Skip("this processor or platform has no such instructions")
	}
	a, b := sha256.New(), sha256.New()
	data := random(3, 6400)
	if p, q := blocks(a, b, data[:640], data[1:650]); len(p) != 0 || len(q) != 9 {
		t.Fatalf("%d and %d bytes are left, want 0 and 9: is the state of crypto/sha256 not understood?", len(p), len(q))
	}
	a.Write(data[:1])
	if p, q := blocks(a, b, data[:200], data[:200]); len(p) != 200-63-128 || len(q) != 200-128 {
		t.Errorf("%d and %d bytes are left", len(p), len(q))
	}
}

func FuzzWrite(f *testing.F) {
	f.Add([]byte("abc"), []byte(""), uint16(1))
	f.Add(random(4, 300), random(5, 200), uint16(64))
	f.Add(random(6, 1000), random(7, 999), uint16(129))
	f.Fuzz(func(t *testing.T, p, q []byte, n uint16) { check(t, p, q, []int{int(n), int(n) / 2, 64}) })
}

// BenchmarkWrite gives the speed of one digest, and of two together.
func BenchmarkWrite(b *testing.B) {
	p, q := random(8, 256<<10), random(9, 256<<10)
	x, y := sha256.New(), sha256.New()
	b.Run("one", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			x.Write(p)
		}
	})
	b.Run("two", func(b *testing.B) {
		b.SetBytes(int64(len(p) + len(q)))
		for b.Loop() {
			Write(x, y, p, q)
		}
	})
}
