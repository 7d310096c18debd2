package seccomp

// Audit architectures, from linux/audit.h.
const (
	archX8664   = 0xc000003e
	archI386    = 0x40000003
	archARM64   = 0xc00000b7
	archARM     = 0x40000028
	archRISCV64 = 0xc00000f3
	archLoong64 = 0xc0000102
)

// x32Bit marks a call through the x32 ABI, whose numbers are otherwise those of x86-64 for all calls in the table.
const x32Bit = 0x40000000

// ABIs returns the ABIs that a machine of this Go architecture can run, and false for one without a table.
func ABIs(goarch string) ([]ABI, bool) {
	switch goarch {
	case "amd64":
		return []ABI{{archX8664, x32Bit, x8664Rules()}, {archI386, 0, i386Rules()}}, true
	case "386":
		return []ABI{{archI386, 0, i386Rules()}}, true
	case "arm64":
		return []ABI{{archARM64, 0, genericRules()}, {archARM, 0, armRules()}}, true
	case "arm":
		return []ABI{{archARM, 0, armRules()}}, true
	case "riscv64":
		return []ABI{{archRISCV64, 0, genericRules()}}, true
	case "loong64":
		return []ABI{{archLoong64, 0, genericRules()}}, true
	}
	return nil, false
}

// commonRules are the calls that came late enough to have one number everywhere.
func commonRules() []Rule {
	return []Rule{
		{452, ModeIn2},     // fchmodat2
		{437, Missing},     // openat2
		{425, Missing},     // io_uring_setup
		{426, Missing},     // io_uring_enter
		{427, Missing},     // io_uring_register
		{463, Unsupported}, // setxattrat
		{464, Unsupported}, // getxattrat
		{465, Unsupported}, // listxattrat
	}
}

// Numbers are from the kernel's system call tables, the most frequent calls first.

func x8664Rules() []Rule {
	return append([]Rule{
		{257, CreateMode2}, // openat
		{2, CreateMode1},   // open
		{90, ModeIn1},      // chmod
		{91, ModeIn1},      // fchmod
		{268, ModeIn2},     // fchmodat
		{85, ModeIn1},      // creat
		{133, ModeIn1},     // mknod
		{259, ModeIn2},     // mknodat
		{188, Unsupported}, // setxattr
		{189, Unsupported}, // lsetxattr
		{190, Unsupported}, // fsetxattr
		{191, Unsupported}, // getxattr
		{192, Unsupported}, // lgetxattr
		{193, Unsupported}, // fgetxattr
		{194, Unsupported}, // listxattr
		{195, Unsupported}, // llistxattr
		{196, Unsupported}, // flistxattr
		{248, Keyring},     // add_key
		{249, Keyring},     // request_key
		{250, Keyring},     // keyctl
	}, commonRules()...)
}

func i386Rules() []Rule {
	return append([]Rule{
		{295, CreateMode2}, // openat
		{306, ModeIn2},     // fchmodat
		{297, ModeIn2},     // mknodat
		{286, Keyring},     // add_key
		{287, Keyring},     // request_key
		{288, Keyring},     // keyctl
	}, old32Rules()...)
}

func armRules() []Rule {
	return append([]Rule{
		{322, CreateMode2}, // openat
		{333, ModeIn2},     // fchmodat
		{324, ModeIn2},     // mknodat
		{309, Keyring},     // add_key
		{310, Keyring},     // request_key
		{311, Keyring},     // keyctl
	}, old32Rules()...)
}

// old32Rules are the numbers that i386 and ARM have in common.
func old32Rules() []Rule {
	return append([]Rule{
		{5, CreateMode1},   // open
		{15, ModeIn1},      // chmod
		{94, ModeIn1},      // fchmod
		{8, ModeIn1},       // creat
		{14, ModeIn1},      // mknod
		{226, Unsupported}, // setxattr
		{227, Unsupported}, // lsetxattr
		{228, Unsupported}, // fsetxattr
		{229, Unsupported}, // getxattr
		{230, Unsupported}, // lgetxattr
		{231, Unsupported}, // fgetxattr
		{232, Unsupported}, // listxattr
		{233, Unsupported}, // llistxattr
		{234, Unsupported}, // flistxattr
	}, commonRules()...)
}

// genericRules are the numbers of architectures that came after the common table (asm-generic/unistd.h).
func genericRules() []Rule {
	return append([]Rule{
		{56, CreateMode2}, // openat
		{52, ModeIn1},     // fchmod
		{53, ModeIn2},     // fchmodat
		{33, ModeIn2},     // mknodat
		{217, Keyring},    // add_key
		{218, Keyring},    // request_key
		{219, Keyring},    // keyctl
		{5, Unsupported},  // setxattr
		{6, Unsupported},  // lsetxattr
		{7, Unsupported},  // fsetxattr
		{8, Unsupported},  // getxattr
		{9, Unsupported},  // lgetxattr
		{10, Unsupported}, // fgetxattr
		{11, Unsupported}, // listxattr
		{12, Unsupported}, // llistxattr
		{13, Unsupported}, // flistxattr
	}, commonRules()...)
}
