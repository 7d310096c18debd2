package seccomp

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/net/bpf"
)

// call is one system call as the kernel shows it to a filter.
type call struct {
	arch, number uint32
	args         [6]uint64
}

// evaluate runs the program in an interpreter. That reads big-endian words, so each word is stored as such, the low
// half of an argument first as on the little-endian machines of the table.
func evaluate(t *testing.T, vm *bpf.VM, c call) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[0:], c.number)
	binary.BigEndian.PutUint32(data[4:], c.arch)
	for i, arg := range c.args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(arg))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(arg>>32))
	}
	ret, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(ret)
}

func newVM(t *testing.T, goarch string) *bpf.VM {
	t.Helper()
	raw, err := Program(goarch)
	if err != nil {
		t.Fatal(err)
	}
	return vmOf(t, raw)
}

func vmOf(t *testing.T, raw []bpf.RawInstruction) *bpf.VM {
	t.Helper()
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("program does not disassemble")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

const (
	perm  = retErrno | errPerm
	notup = retErrno | errNotSup
	nosys = retErrno | errNoSys
)

func TestFilter(t *testing.T) {
	const x32 = 0x40000000
	tests := []struct {
		name, goarch string
		call         call
		want         uint32
	}{
		{"chmod 755", "amd64", call{archX8664, 90, [6]uint64{0, 0o755}}, retAllow},
		{"chmod 1777", "amd64", call{archX8664, 90, [6]uint64{0, 0o1777}}, retAllow},
		{"chmod 4755", "amd64", call{archX8664, 90, [6]uint64{0, 0o4755}}, perm},
		{"chmod 2755", "amd64", call{archX8664, 90, [6]uint64{0, 0o2755}}, perm},
		{"chmod 6755", "amd64", call{archX8664, 90, [6]uint64{0, 0o6755}}, perm},
		{"chmod, x32", "amd64", call{archX8664, 90 | x32, [6]uint64{0, 0o4755}}, perm},
		{"fchmod", "amd64", call{archX8664, 91, [6]uint64{3, 0o4755}}, perm},
		{"fchmodat", "amd64", call{archX8664, 268, [6]uint64{3, 0o4000, 0o2755}}, perm},
		{"fchmodat, other argument", "amd64", call{archX8664, 268, [6]uint64{3, 0o4000, 0o755}}, retAllow},
		{"fchmodat2", "amd64", call{archX8664, 452, [6]uint64{3, 0, 0o4755}}, perm},
		{"fchmodat2, x32", "amd64", call{archX8664, 452 | x32, [6]uint64{3, 0, 0o4755}}, perm},
		{"chmod, i386", "amd64", call{archI386, 15, [6]uint64{0, 0o4755}}, perm},
		{"fchmodat, i386", "amd64", call{archI386, 306, [6]uint64{0, 0, 0o4755}}, perm},
		{"i386 number on x86-64", "amd64", call{archX8664, 15, [6]uint64{0, 0o4755}}, retAllow},
		{"open for reading with junk mode", "amd64", call{archX8664, 2, [6]uint64{0, 0, 0o4755}}, retAllow},
		{"open creating", "amd64", call{archX8664, 2, [6]uint64{0, 0o101, 0o644}}, retAllow},
		{"open creating set-uid", "amd64", call{archX8664, 2, [6]uint64{0, 0o101, 0o4755}}, perm},
		{"openat creating set-gid", "amd64", call{archX8664, 257, [6]uint64{3, 0, 0o101, 0o2755}}, perm},
		{"openat O_TMPFILE set-uid", "amd64", call{archX8664, 257, [6]uint64{3, 0, 0o20200001, 0o4755}}, perm},
		{"openat O_DIRECTORY, junk mode", "amd64", call{archX8664, 257, [6]uint64{3, 0, 0o200000, 0o4755}}, retAllow},
		{"openat, i386", "amd64", call{archI386, 295, [6]uint64{3, 0, 0o101, 0o4755}}, perm},
		{"creat", "amd64", call{archX8664, 85, [6]uint64{0, 0o4755}}, perm},
		{"mknod", "amd64", call{archX8664, 133, [6]uint64{0, 0o104755}}, perm},
		{"mknod plain", "amd64", call{archX8664, 133, [6]uint64{0, 0o100755}}, retAllow},
		{"mknodat", "amd64", call{archX8664, 259, [6]uint64{3, 0, 0o102755}}, perm},
		{"high half does not hide", "amd64", call{archX8664, 90, [6]uint64{0, 0xffffffff00000000 | 0o4755}}, perm},
		{"setxattr", "amd64", call{archX8664, 188, [6]uint64{}}, notup},
		{"fgetxattr", "amd64", call{archX8664, 193, [6]uint64{}}, notup},
		{"listxattr", "amd64", call{archX8664, 194, [6]uint64{}}, notup},
		{"llistxattr, x32", "amd64", call{archX8664, 195 | x32, [6]uint64{}}, notup},
		{"flistxattr, i386", "amd64", call{archI386, 234, [6]uint64{}}, notup},
		{"setxattrat", "amd64", call{archX8664, 463, [6]uint64{}}, notup},
		{"getxattrat, x32", "amd64", call{archX8664, 464 | x32, [6]uint64{}}, notup},
		{"listxattrat, i386", "amd64", call{archI386, 465, [6]uint64{}}, notup},
		{"removexattrat", "amd64", call{archX8664, 466, [6]uint64{}}, retAllow},
		{"keyctl", "amd64", call{archX8664, 250, [6]uint64{}}, nosys},
		{"keyctl, i386", "amd64", call{archI386, 288, [6]uint64{}}, nosys},
		{"keyctl", "arm64", call{archARM64, 219, [6]uint64{}}, nosys},
		{"keyctl, arm", "arm64", call{archARM, 311, [6]uint64{}}, nosys},
		{"openat2", "amd64", call{archX8664, 437, [6]uint64{}}, nosys},
		{"openat2, x32", "amd64", call{archX8664, 437 | x32, [6]uint64{}}, nosys},
		{"openat2, i386", "amd64", call{archI386, 437, [6]uint64{}}, nosys},
		{"io_uring_setup", "amd64", call{archX8664, 425, [6]uint64{}}, nosys},
		{"io_uring_enter, x32", "amd64", call{archX8664, 426 | x32, [6]uint64{}}, nosys},
		{"io_uring_register, i386", "amd64", call{archI386, 427, [6]uint64{}}, nosys},
		{"removexattr", "amd64", call{archX8664, 197, [6]uint64{}}, retAllow},
		{"getxattr, i386", "amd64", call{archI386, 229, [6]uint64{}}, notup},
		{"read", "amd64", call{archX8664, 0, [6]uint64{}}, retAllow},
		{"no call", "amd64", call{archX8664, 0xffffffff, [6]uint64{}}, retAllow},
		{"foreign architecture", "amd64", call{archARM64, 52, [6]uint64{}}, retKillProcess},

		{"fchmodat", "arm64", call{archARM64, 53, [6]uint64{3, 0, 0o4755}}, perm},
		{"openat", "arm64", call{archARM64, 56, [6]uint64{3, 0, 0o101, 0o4755}}, perm},
		{"lsetxattr", "arm64", call{archARM64, 6, [6]uint64{}}, notup},
		{"listxattr", "arm64", call{archARM64, 11, [6]uint64{}}, notup},
		{"removexattr", "arm64", call{archARM64, 14, [6]uint64{}}, retAllow},
		{"openat2, arm", "arm64", call{archARM, 437, [6]uint64{}}, nosys},
		{"chmod, arm", "arm64", call{archARM, 15, [6]uint64{0, 0o2755}}, perm},
		{"openat, arm", "arm64", call{archARM, 322, [6]uint64{3, 0, 0o101, 0o4755}}, perm},
		{"fchmodat, arm", "arm", call{archARM, 333, [6]uint64{3, 0, 0o4755}}, perm},
		{"i386 alone", "386", call{archI386, 94, [6]uint64{3, 0o4755}}, perm},
		{"riscv64", "riscv64", call{archRISCV64, 33, [6]uint64{3, 0, 0o104755}}, perm},
		{"loong64", "loong64", call{archLoong64, 452, [6]uint64{3, 0, 0o4755}}, perm},
	}
	for _, tt := range tests {
		t.Run(tt.goarch+"/"+tt.name, func(t *testing.T) {
			if got := evaluate(t, newVM(t, tt.goarch), tt.call); got != tt.want {
				t.Errorf("got %#x, want %#x", got, tt.want)
			}
		})
	}
}

// TestKeyrings: nothing but the keyrings is missing, whatever the ABI.
func TestKeyrings(t *testing.T) {
	for _, goarch := range []string{"amd64", "386", "arm64", "arm", "riscv64", "loong64"} {
		program, err := Keyrings(goarch)
		if err != nil {
			t.Fatal(err)
		}
		vm := vmOf(t, program)
		abis, _ := ABIs(goarch)
		keyrings := 0
		for _, abi := range abis {
			for _, r := range abi.Rules {
				want := uint32(retAllow)
				if r.Check == Keyring {
					want = nosys
					keyrings++
				}
				if got := evaluate(t, vm, call{abi.Arch, r.Number, [6]uint64{0, 0o4755, 0o4755, 0o4755}}); got != want {
					t.Errorf("%s: call %d of %#x: got %#x, want %#x", goarch, r.Number, abi.Arch, got, want)
				}
			}
		}
		if keyrings != 3*len(abis) {
			t.Errorf("%s: %d calls reach keyrings", goarch, keyrings)
		}
		if got := evaluate(t, vm, call{0x12345678, 250, [6]uint64{}}); got != retAllow {
			t.Errorf("%s: a foreign ABI: got %#x", goarch, got)
		}
	}
	if _, err := Keyrings("s390x"); !errors.Is(err, ErrPlatform) {
		t.Errorf("got %v for s390x", err)
	}
}

func TestNoTable(t *testing.T) {
	if _, err := Program("s390x"); !errors.Is(err, ErrPlatform) {
		t.Errorf("got %v for s390x, whose arguments lie the other way round", err)
	}
}

// Every call of a table must have its effect: a rule that another hides would be dead.
func TestEveryRule(t *testing.T) {
	modes := map[Check][6]uint64{
		ModeIn1:     {0, 0o4000},
		ModeIn2:     {0, 0, 0o4000},
		CreateMode1: {0, 0o100, 0o4000},
		CreateMode2: {0, 0, 0o100, 0o4000},
	}
	for _, goarch := range []string{"amd64", "386", "arm64", "arm", "riscv64", "loong64"} {
		vm := newVM(t, goarch)
		abis, _ := ABIs(goarch)
		for _, abi := range abis {
			for _, r := range abi.Rules {
				want := uint32(perm)
				switch r.Check {
				case Unsupported:
					want = notup
				case Missing, Keyring:
					want = nosys
				}
				if got := evaluate(t, vm, call{abi.Arch, r.Number, modes[r.Check]}); got != want {
					t.Errorf("%s: call %d of %#x: got %#x, want %#x", goarch, r.Number, abi.Arch, got, want)
				}
			}
		}
	}
}
