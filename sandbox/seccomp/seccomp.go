// Package seccomp makes the system call filter of builders.
//
// A filter is a list of [Rule] for each ABI that a processor can run ([ABI]), assembled into one BPF program by
// [Assemble]; [Program] gives the one for a machine, and [Install] puts it on the calling thread. The default is to
// allow: the filter's only purpose is that a build result can be represented in a NAR and cannot become somebody's
// privilege.
//
//   - Changing a file's mode to one with a set-user-id or set-group-id bit fails with EPERM.
//   - Creating a file with such a bit (open, openat, creat, mknod, mknodat) fails likewise.
//   - openat2 and io_uring fail with ENOSYS, as on a kernel without them: the mode of the file that they create lies
//     in memory, where a filter cannot see it. Programs go back to the calls that came before.
//   - The kernel's keyrings fail with ENOSYS: the daemon's session keyring is its builders', too, and those of a user
//     outlast the build. That alone is [Keyrings], for builds without the filter (upstream's filter-syscalls = false).
//   - Reading, listing and writing extended attributes (and with them ACLs), by path, by descriptor and beneath a
//     directory, fails with ENOTSUP. Removing them is let through, since it can only make a file plainer.
//
// The upstream release whose behaviour we match (2.34.8) stops less: the chmod family and the reading and writing of
// attributes by the calls before setxattrat; 2.35 added the listing. What creates a file with its bits set, and what
// reaches attributes through the newer calls, it leaves to the canonicalisation of outputs. Until that has run the
// file exists, and another user who can reach it can run it; so we are stricter. Where upstream's filter knows a call
// and ours knows it too, the error is the same.
package seccomp

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/net/bpf"
)

// Check is what a rule looks at.
type Check int

const (
	// ModeIn1 and ModeIn2 deny a set-id bit in argument 1 or 2, counted from 0.
	ModeIn1 Check = iota + 1
	ModeIn2
	// CreateMode1 denies a mode with a set-id bit in argument 2 if the flags in argument 1 create a file; the
	// mode is arbitrary otherwise, since callers need not pass one.
	CreateMode1
	// CreateMode2 is the same with flags in argument 2 and mode in argument 3.
	CreateMode2
	// Unsupported denies the call with ENOTSUP.
	Unsupported
	// Missing denies the call with ENOSYS.
	Missing
	// Keyring is the same, for calls that reach the kernel's keyrings.
	Keyring
)

// Rule applies a check to one system call.
type Rule struct {
	Number uint32
	Check  Check
}

// ABI is one way of calling the kernel: an audit architecture and its numbers.
type ABI struct {
	// Arch is the AUDIT_ARCH_ value that the kernel reports.
	Arch uint32
	// Ignore are bits of the system call number that do not select the call (x32 sets one on x86-64).
	Ignore uint32
	// Rules in the order in which they are looked at.
	Rules []Rule
}

// Offsets into struct seccomp_data; arguments are 64 bits, of which the low half holds modes and flags.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// Actions, from linux/seccomp.h, and the error numbers of all Linux architectures in the table.
const (
	retKillProcess = 0x80000000
	retErrno       = 0x00050000
	retAllow       = 0x7fff0000

	errPerm   = 1
	errNoSys  = 38
	errNotSup = 95
)

const (
	setIDBits = 0o6000
	// createBits are O_CREAT and the bit that O_TMPFILE adds to O_DIRECTORY, the same on all ABIs here.
	createBits = 0o100 | 0o20000000
)

// ErrPlatform is the answer where no filter can be made. The text is upstream's.
var ErrPlatform = errors.New("seccomp is not supported on this platform; " +
	"you can bypass this error by setting the option 'filter-syscalls' to false, " +
	"but note that untrusted builds can then create setuid binaries!")

// Program returns the filter for a machine of this Go architecture, ready for the kernel: struct sock_filter has the
// layout of its elements. Where there is no table it is [ErrPlatform].
func Program(goarch string) ([]bpf.RawInstruction, error) {
	abis, ok := ABIs(goarch)
	if !ok {
		return nil, ErrPlatform
	}
	return Assemble(abis)
}

// Keyrings returns the filter that keeps the kernel's keyrings out of reach, and nothing else.
func Keyrings(goarch string) ([]bpf.RawInstruction, error) {
	abis, ok := ABIs(goarch)
	if !ok {
		return nil, ErrPlatform
	}
	for i := range abis {
		abis[i].Rules = slices.DeleteFunc(abis[i].Rules, func(r Rule) bool { return r.Check != Keyring })
	}
	return assemble(abis, allow)
}

// Assemble makes the program for all ABIs of a machine. A call through any other ABI kills the process.
func Assemble(abis []ABI) ([]bpf.RawInstruction, error) {
	return assemble(abis, bpf.RetConstant{Val: retKillProcess})
}

func assemble(abis []ABI, other bpf.Instruction) ([]bpf.RawInstruction, error) {
	var program []bpf.Instruction
	for _, abi := range abis {
		block := abi.instructions()
		program = append(program,
			bpf.LoadAbsolute{Off: offsetArch, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: abi.Arch, SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(block))})
		program = append(program, block...)
	}
	program = append(program, other)
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assemble system call filter: %w", err)
	}
	return raw, nil
}

func (a ABI) instructions() []bpf.Instruction {
	block := []bpf.Instruction{bpf.LoadAbsolute{Off: offsetNumber, Size: 4}}
	if a.Ignore != 0 {
		block = append(block, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^a.Ignore})
	}
	for _, r := range a.Rules {
		body := r.Check.instructions()
		block = append(block, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: r.Number, SkipTrue: uint8(len(body))})
		block = append(block, body...)
	}
	return append(block, allow)
}

var (
	allow       = bpf.RetConstant{Val: retAllow}
	denied      = bpf.RetConstant{Val: retErrno | errPerm}
	unsupported = bpf.RetConstant{Val: retErrno | errNotSup}
	missing     = bpf.RetConstant{Val: retErrno | errNoSys}
)

// instructions end in a return on every way.
func (c Check) instructions() []bpf.Instruction {
	switch c {
	case ModeIn1:
		return denySetID(1)
	case ModeIn2:
		return denySetID(2)
	case CreateMode1:
		return append(ifCreates(1), denySetID(2)...)
	case CreateMode2:
		return append(ifCreates(2), denySetID(3)...)
	case Unsupported:
		return []bpf.Instruction{unsupported}
	case Missing, Keyring:
		return []bpf.Instruction{missing}
	}
	panic(fmt.Sprintf("seccomp: unknown check %d", c))
}

func ifCreates(arg uint32) []bpf.Instruction {
	return []bpf.Instruction{
		loadArg(arg),
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: createBits, SkipTrue: 1},
		allow,
	}
}

func denySetID(arg uint32) []bpf.Instruction {
	return []bpf.Instruction{
		loadArg(arg),
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: setIDBits, SkipTrue: 1},
		denied,
		allow,
	}
}

// loadArg loads the low half of an argument, which comes first: all architectures in the table are little-endian.
func loadArg(arg uint32) bpf.Instruction {
	return bpf.LoadAbsolute{Off: offsetArgs + 8*arg, Size: 4}
}
