package child

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"nixdaemon/sandbox/internal/plan"
)

// call is one entry of the table. Its layout is known to run_linux_*.s.
type call struct {
	number   uintptr    // 0
	args     [6]uintptr // 8
	save     uintptr    // 56: where the result goes, if not 0
	rule     uintptr    // 64: what the result must be
	tolerate uintptr    // 72: an error number that does not end the child, if not 0
	passOver uintptr    // 80: what is added to the address of this call after that error
}

// Rules for results; run_linux_*.s has them as numbers.
const (
	ruleNone = 0
	ruleFork = 1
	ruleZero = 2
)

// report is what the child leaves. Its layout is known to run_linux_*.s.
type report struct {
	failed uintptr // 0: the address of the call that failed, 0 for none
	errno  uintptr // 8
	pid    uintptr // the child's id if it was cloned by the first child
	kept   uintptr // the result of plan.ResultKeep
}

// Image is a child's program. It is used once.
type Image struct {
	steps  []plan.Step
	calls  []call
	data   []byte
	report *report
	alive  *uint32
	pinner runtime.Pinner
}

// NewImage lays the steps out in memory. Close it when the child is over.
func NewImage(steps []plan.Step) *Image {
	m := &Image{steps: steps, calls: make([]call, len(steps)), report: new(report), alive: new(uint32)}
	size := 0
	for i := range steps {
		for _, a := range steps[i].Args {
			size += argSize(&a)
		}
	}
	// Never grows: addresses into it are taken while it is filled.
	m.data = make([]byte, 0, size)
	m.pinner.Pin(&m.calls[0])
	m.pinner.Pin(m.report)
	m.pinner.Pin(m.alive)
	if size > 0 {
		m.pinner.Pin(unsafe.SliceData(m.data))
	}
	for i := range steps {
		m.lay(i)
	}
	return m
}

// Close lets go of the memory. The child must not run any more.
func (m *Image) Close() { m.pinner.Unpin() }

const callSize = unsafe.Sizeof(call{})

func (m *Image) lay(i int) {
	s, c := &m.steps[i], &m.calls[i]
	c.number, c.tolerate, c.passOver = s.Number, uintptr(s.Tolerate), callSize
	if s.Guard {
		c.passOver = 2 * callSize
	}
	for n, a := range s.Args {
		switch {
		case a.Daemon:
			c.args[n] = uintptr(unsafe.Pointer(m.alive))
		case a.IsText:
			c.args[n] = m.putText(a.Text)
		case a.Block != nil:
			c.args[n] = m.put(a.Block)
		default:
			c.args[n] = uintptr(a.Value)
		}
	}
	switch s.Result {
	case plan.ResultNext:
		c.save = uintptr(unsafe.Pointer(&m.calls[i+1+s.Ahead].args[s.Into]))
	case plan.ResultFork:
		c.rule, c.save = ruleFork, uintptr(unsafe.Pointer(&m.report.pid))
	case plan.ResultKeep:
		c.save = uintptr(unsafe.Pointer(&m.report.kept))
	case plan.ResultZero:
		c.rule = ruleZero
	}
}

// put copies a block and returns its address.
func (m *Image) put(b *plan.Block) uintptr {
	at := len(m.data)
	m.data = m.data[:at+align(len(b.Bytes))]
	copy(m.data[at:], b.Bytes)
	for _, p := range b.Pointers {
		binary.NativeEndian.PutUint64(m.data[at+p.At:], uint64(m.put(p.To)))
	}
	return uintptr(unsafe.Pointer(unsafe.SliceData(m.data))) + uintptr(at)
}

// putText copies a C string: the memory is zero already.
func (m *Image) putText(s string) uintptr {
	at := len(m.data)
	m.data = m.data[:at+align(len(s)+1)]
	copy(m.data[at:], s)
	return uintptr(unsafe.Pointer(unsafe.SliceData(m.data))) + uintptr(at)
}

func argSize(a *plan.Arg) int {
	if a.IsText {
		return align(len(a.Text) + 1)
	}
	return blockSize(a.Block)
}

func blockSize(b *plan.Block) int {
	if b == nil {
		return 0
	}
	size := align(len(b.Bytes))
	for _, p := range b.Pointers {
		size += blockSize(p.To)
	}
	return size
}

// align rounds up to what structures of the kernel need; an empty block gets an address of its own, too.
func align(n int) int { return max(n+7, 8) &^ 7 }
