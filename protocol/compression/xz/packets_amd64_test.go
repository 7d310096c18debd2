//go:build !purego && unix

package xz

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	ulikunitz "github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
)

// fenced is memory that ends, or begins, where a page begins that must not be touched.
type fenced struct {
	pages []byte // the first and the last are the fences
}

func fence(t testing.TB, size int) fenced {
	t.Helper()
	page := unix.Getpagesize()
	pages, err := unix.Mmap(-1, 0, (size+page-1)/page*page+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(pages) })
	for _, fence := range [][]byte{pages[:page], pages[len(pages)-page:]} {
		if err := unix.Mprotect(fence, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return fenced{pages}
}

// first gives size bytes right behind the fence in front, last right before the one behind.
func (f fenced) first(size uint) []byte { return f.inside()[:size:size] }
func (f fenced) last(size uint) []byte  { return f.inside()[uint(len(f.inside()))-size:] }

func (f fenced) inside() []byte {
	page := unix.Getpagesize()
	return f.pages[page : len(f.pages)-page]
}

// rivals decodes chunks with assembly and with Go.
type rivals struct {
	in   *packed // between fences
	room fenced  // of the assembly's dictionary
	n    int
}

const rivalRoom = 1 << 18

func newRivals(t testing.TB) *rivals {
	return &rivals{in: (*packed)(fence(t, packedRoom).first(packedRoom)), room: fence(t, rivalRoom)}
}

// decode decodes buf[w:end] twice, each time with copies of the model and of buf, and wants them to agree on everything.
// It leaves the model and buf as the result is, if there is one.
func (r *rivals) decode(t *testing.T, m *model, in []byte, size uint, buf []byte, w, end uint) bool {
	t.Helper()
	// With and without room between the chunk and the fence.
	r.n++
	all := end + overshoot
	theirs := r.room.first(all)
	if r.n%2 == 0 {
		theirs = r.room.last(all)
	}
	copy(theirs, buf[:all])
	copy(r.in[:], in)
	ours := bytes.Clone(buf[:all])
	a, b := *m, *m
	begun, begunToo := a.begin(r.in, w), b.begin(r.in, w)
	if begun != begunToo {
		t.Fatal("the beginning differs")
	}
	for at, ok := w, begun; ok && at < end; {
		stop := min(end, at+uint(1+r.n*7919%70_000))
		now, good := a.packetsGo(r.in, size, ours, at, stop, end)
		nowToo, goodToo := packetsAsm(&b, r.in, size, &theirs[0], at, stop, end)
		if now != nowToo || good != goodToo {
			t.Fatalf("from %d on: Go %d, %v; assembly %d, %v", at, now, good, nowToo, goodToo)
		}
		if !bytes.Equal(ours[:now], theirs[:now]) {
			t.Fatalf("up to %d: other contents", now)
		}
		if behind := min(now+overshoot, all); !bytes.Equal(theirs[behind:], buf[behind:all]) {
			t.Fatalf("up to %d: written further", now)
		}
		if !good {
			a.forget()
			b.forget()
		}
		if a != b {
			t.Fatalf("up to %d: other state", now)
		}
		at, ok = now, good
		begun = good
	}
	if !begun || !a.finish(r.in, size) {
		return false
	}
	*m = b
	copy(buf[:end], theirs)
	return true
}

// forget makes equal what nobody asks for after an error.
func (m *model) forget() {
	m.state, m.rep0, m.rep1, m.rep2, m.rep3 = 0, 0, 0, 0, 0
	m.rng, m.code, m.at = 0, 0, 0
}

// mixture is size bytes in which much comes again, from very near, near and far, amid noise.
func mixture(seed uint64, size int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	var b []byte
	for len(b) < size {
		n := r.IntN(1 << r.IntN(10))
		switch kind := r.IntN(4); {
		case kind == 0 && len(b) > 0:
			for distance := 1 + r.IntN(min(len(b), 40)); n > 0; n-- {
				b = append(b, b[len(b)-distance])
			}
		case kind < 3 && len(b) > n:
			at := r.IntN(len(b) - n)
			b = append(b, b[at:at+n]...)
			b = append(b, byte(r.IntN(256)))
		default:
			for range n % 32 {
				b = append(b, byte(r.IntN(64)))
			}
		}
	}
	return b[:size]
}

// streams are files of as many kinds as can be made here.
func streams(t testing.TB, data []byte) map[string][]byte {
	t.Helper()
	made := make(map[string][]byte)
	for name, c := range map[string]ulikunitz.WriterConfig{"library": {}, "library, small": {DictCap: 4096}} {
		var out bytes.Buffer
		w, err := c.NewWriter(&out)
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		made[name] = out.Bytes()
	}
	if _, err := exec.LookPath("xz"); err != nil {
		t.Log("no xz program here: only what a library makes")
		return made
	}
	for _, args := range []string{
		"preset=0", "preset=6", "preset=9e", "preset=0,dict=4KiB", "preset=1,lc=0,lp=4,pb=0", "preset=1,lc=4,lp=0,pb=4",
		"preset=1,lc=1,lp=2,pb=3", "preset=0,mode=fast,mf=hc3,nice=273", "preset=1,lc=0,lp=0,pb=0", "preset=6,lc=2,lp=2,pb=1,nice=8",
	} {
		cmd := exec.Command("xz", "-c", "--lzma2="+args)
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		made[args] = out
	}
	return made
}

// walk hands out the compressed chunks of a file's first block, with the model as it is before each. decode leaves the
// model and the dictionary as they are after it.
func walk(t testing.TB, file []byte, decode func(m *model, in []byte, size uint, buf []byte, w, end uint)) []byte {
	t.Helper()
	c := chunks{model: new(model), in: new(packed)}
	c.begin(1 << 20)
	r := bufio.NewReader(bytes.NewReader(file[12+4*(int(file[12])+1):]))
	for !c.ended {
		head, err := r.Peek(6)
		if err != nil {
			t.Fatal(err)
		}
		if head[0] < 0x80 {
			if err := c.next(r); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if head[0] >= 0xe0 {
			c.w, c.needReset, c.needProps = 0, false, true
		}
		size := uint(head[0]&0x1f)<<16 + uint(binary.BigEndian.Uint16(head[1:])) + 1
		packedSize := uint(binary.BigEndian.Uint16(head[3:])) + 1
		control := head[0]
		r.Discard(5)
		if err := c.resets(r, control); err != nil {
			t.Fatal(err)
		}
		in := make([]byte, packedSize)
		if _, err := io.ReadFull(r, in); err != nil {
			t.Fatal(err)
		}
		c.makeRoom(size)
		decode(c.model, in, packedSize, c.buf, c.w, c.w+size)
		c.w += size
	}
	return c.buf[:c.w]
}

// TestAssemblyAgrees decodes files whole, and each chunk also with some damage.
func TestAssemblyAgrees(t *testing.T) {
	data := mixture(1, 150_000)
	for name, file := range streams(t, data) {
		t.Run(strings.NewReplacer(",", " ", "=", " ").Replace(name), func(t *testing.T) {
			t.Parallel()
			r, random := newRivals(t), rand.New(rand.NewPCG(3, uint64(len(file))))
			got := walk(t, file, func(m *model, in []byte, size uint, buf []byte, w, end uint) {
				for range 60 {
					r.damaged(t, random, m, in, size, buf, w, end)
				}
				if !r.decode(t, m, in, size, buf, w, end) {
					t.Fatal("not decoded")
				}
			})
			if !bytes.Equal(got, data) {
				t.Error("other contents")
			}
		})
	}
}

// damaged decodes a chunk of which something is not as it should be.
func (r *rivals) damaged(t *testing.T, random *rand.Rand, m *model, in []byte, size uint, buf []byte, w, end uint) {
	t.Helper()
	other, in := *m, bytes.Clone(in)
	switch random.IntN(4) {
	case 0: // shorter, longer, or so short that the chunk's end is where a packet must not begin
		size = uint(random.IntN(len(in) + 1))
		end = min(end+uint(random.IntN(40)), uint(len(buf))-overshoot)
	case 1: // from somewhere on garbage
		for i := 1 + random.IntN(len(in)-1); i < len(in); i++ {
			in[i] = byte(random.Uint32())
		}
	case 2:
		in[random.IntN(len(in))] ^= 1 << random.IntN(8)
	case 3:
		other.rep0, other.rep1 = uint32(random.IntN(int(w)+1)), random.Uint32()>>random.IntN(32)
		other.rep2, other.rep3 = random.Uint32()>>random.IntN(32), random.Uint32()
		other.state = uint32(random.IntN(states))
	}
	r.decode(t, &other, in, size, bytes.Clone(buf), w, max(end, w+1))
}

// randomise makes a model that has learnt something or other.
func (m *model) randomise(random *rand.Rand, w uint) {
	set := func(p []prob) {
		for i := range p {
			p[i] = 31 + prob(random.IntN(1<<probBits-31-31+1))
		}
	}
	for s := range m.isMatch {
		set(m.isMatch[s][:])
		set(m.isRep0Long[s][:])
	}
	for _, p := range [][]prob{m.isRep[:], m.isRep0[:], m.isRep1[:], m.isRep2[:], m.special[:], m.align[:]} {
		set(p)
	}
	for i := range m.slot {
		set(m.slot[i][:])
	}
	for i := range m.literals {
		set(m.literals[i][:])
	}
	for _, l := range []*lengths{&m.matchLen, &m.repLen} {
		l.choice, l.choice2 = 31+prob(random.IntN(1900)), 31+prob(random.IntN(1900))
		for i := range l.low {
			set(l.low[i][:])
			set(l.mid[i][:])
		}
		set(l.high[:])
	}
	m.state = uint32(random.IntN(states))
	for _, rep := range []*uint32{&m.rep0, &m.rep1, &m.rep2, &m.rep3} {
		*rep = uint32(random.IntN(int(w) + 1))
	}
}

// FuzzAssembly wants assembly and Go to agree on chunks from any state.
func FuzzAssembly(f *testing.F) {
	for i, file := range []string{"", "\x00\xff\xff\xff\xfe", strings.Repeat("\x00", 100), strings.Repeat("\x00\xff\x80", 3000), string(mixture(4, 5000))} {
		f.Add([]byte(file), byte(93+i), uint16(i*1000), uint16(60_000), uint64(i))
	}
	r := newRivals(f)
	f.Fuzz(func(t *testing.T, in []byte, properties byte, w, size uint16, seed uint64) {
		m := new(model)
		if m.setProperties(properties) != nil || len(in) > maxPacked || size == 0 {
			return
		}
		if len(in) > 0 {
			in[0] = 0
		}
		// What lies behind the chunk counts too, when it is run into.
		random := rand.New(rand.NewPCG(seed, 5))
		behind := make([]byte, len(in), len(in)+1000)
		copy(behind, in)
		for range 1000 {
			behind = append(behind, byte(random.Uint32()))
		}
		m.reset()
		if seed%4 != 0 {
			m.randomise(random, uint(w))
		}
		end := uint(w) + uint(size)
		buf := mixture(seed%16, int(end+overshoot))
		r.decode(t, m, behind, uint(len(in)), buf, uint(w), end)
	})
}
