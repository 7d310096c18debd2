package plan

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Step is one system call of the child.
type Step struct {
	// Verb and Target name the step in errors: "mount '/proc': operation not permitted".
	Verb, Target string
	// Call is the system call's name, for people.
	Call   string
	Number uintptr
	Args   []Arg
	// Tolerate is an error number that does not matter; 0: all do.
	Tolerate unix.Errno
	// Guard leaves the next step out after a tolerated error.
	Guard bool
	// Result says what to do with what the call returns.
	Result Result
	// Into is the argument that the result replaces, for ResultNext: of the next step, or of one so much further on.
	Into, Ahead int
}

// Result is what happens with the result of a call that has succeeded.
type Result uint8

const (
	// ResultDrop forgets it.
	ResultDrop Result = iota
	// ResultNext makes it an argument of a later step: a descriptor.
	ResultNext
	// ResultFork is for clone: who sees a result other than zero is the parent, and ends.
	ResultFork
	// ResultKeep keeps it for the daemon.
	ResultKeep
	// ResultZero demands zero. Anything else means that the daemon is no more, and the child ends.
	ResultZero
)

// Arg is an argument: a number, or the address of a block of memory or of a C string.
type Arg struct {
	Value uint64
	Block *Block
	// Text is the string if IsText is set. It has no zero byte in it.
	Text   string
	IsText bool
	// Daemon marks the address of the word that tells the daemon of the child's exec or end.
	Daemon bool
}

// Block is memory that a call reads, with the addresses of other blocks in it.
type Block struct {
	Bytes    []byte
	Pointers []Pointer
}

// Pointer is an address to be written at an offset that is a multiple of 8.
type Pointer struct {
	At int
	To *Block
}

func num[T ~int | ~uint | ~int32 | ~uint32 | ~uint64 | ~uintptr](v T) Arg {
	return Arg{Value: uint64(v)}
}

// null is a null pointer or an argument that does not matter.
var null = Arg{}

func str(s string) Arg { return Arg{Text: s, IsText: true} }

func text(s string) *Block { return &Block{Bytes: append([]byte(s), 0)} }

func raw(b []byte) Arg { return Arg{Block: &Block{Bytes: b}} }

// vector is an array of C strings with a null pointer at its end.
func vector(list []string) Arg {
	b := &Block{Bytes: make([]byte, 8*(len(list)+1))}
	for i, s := range list {
		b.Pointers = append(b.Pointers, Pointer{8 * i, text(s)})
	}
	return Arg{Block: b}
}

// String is the step as one line.
func (s Step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", s.Verb)
	if s.Target != "" {
		fmt.Fprintf(&b, " '%s'", s.Target)
	}
	fmt.Fprintf(&b, ": %s(", s.Call)
	for i, a := range s.Args {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(a.String())
	}
	b.WriteString(")")
	switch s.Result {
	case ResultNext:
		fmt.Fprintf(&b, " -> argument %d of the next", s.Into)
		if s.Ahead > 0 {
			fmt.Fprintf(&b, " but %d", s.Ahead)
		}
	case ResultFork:
		b.WriteString(" -> the child goes on")
	case ResultKeep:
		b.WriteString(" -> kept")
	case ResultZero:
		b.WriteString(" = 0")
	}
	if s.Tolerate != 0 {
		fmt.Fprintf(&b, ", or %s", unix.ErrnoName(s.Tolerate))
	}
	if s.Guard {
		b.WriteString(" and not the next")
	}
	return b.String()
}

func (a Arg) String() string {
	switch {
	case a.Daemon:
		return "&alive"
	case a.IsText:
		return strconv.Quote(a.Text)
	case a.Block == nil:
		if int64(a.Value) < 0 && int64(a.Value) > -4096 || a.Value < 10 {
			return fmt.Sprint(int64(a.Value))
		}
		return fmt.Sprintf("%#x", a.Value)
	}
	return a.Block.String()
}

func (b *Block) String() string {
	if len(b.Pointers) > 0 {
		var items []string
		for _, p := range b.Pointers {
			items = append(items, p.To.String())
		}
		return "[" + strings.Join(items, " ") + "]"
	}
	if n := len(b.Bytes) - 1; n >= 0 && b.Bytes[n] == 0 && printable(b.Bytes[:n]) {
		return fmt.Sprintf("%q", b.Bytes[:n])
	}
	if len(b.Bytes) > 64 {
		return fmt.Sprintf("{%d bytes}", len(b.Bytes))
	}
	return fmt.Sprintf("{%x}", b.Bytes)
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\n' || c > '~' {
			return false
		}
	}
	return len(b) > 0
}
