package config

import (
	"bufio"
	"debug/elf"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nixdaemon/worker/settings"
)

// Process returns the Input of the running process: its arguments, variables, home directory, host and files.
func Process() Input {
	return Input{Args: os.Args, Getenv: os.LookupEnv, Home: homeDir(), Host: DetectHost(), FS: hostFS{}}
}

// homeDir is HOME, or what the user database says.
func homeDir() string {
	if home := os.Getenv("HOME"); home != "" {
		return home
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return "/"
}

// DetectHost finds the facts that defaults depend on. What cannot be found out counts as absent.
func DetectHost() settings.Environment {
	env := settings.Environment{
		System:        goSystem(runtime.GOARCH, runtime.GOOS),
		CPUs:          uint(runtime.NumCPU()),
		Root:          os.Geteuid() == 0,
		SystemSSLCert: firstReadable("/etc/ssl/certs/ca-certificates.crt", "/nix/var/nix/profiles/default/etc/ssl/certs/ca-bundle.crt"),
	}
	detectPlatform(&env)
	return env
}

// goSystem is the platform as Nix spells it.
func goSystem(arch, os string) string {
	names := map[string]string{
		"amd64": "x86_64", "arm64": "aarch64", "386": "i686", "arm": "armv7l", "ppc64le": "powerpc64le",
		"loong64": "loongarch64", "mips64le": "mips64el",
	}
	if name, ok := names[arch]; ok {
		arch = name
	}
	return arch + "-" + os
}

func firstReadable(paths ...string) string {
	i := slices.IndexFunc(paths, func(p string) bool { return unix.Access(p, unix.R_OK) == nil })
	if i < 0 {
		return ""
	}
	return paths[i]
}

// firstStatic is the first of the programs that exists and needs no dynamic linker.
func firstStatic(paths ...string) string {
	for _, p := range paths {
		f, err := elf.Open(p)
		if err != nil {
			continue
		}
		static := !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
		if f.Close() == nil && static {
			return p
		}
	}
	return ""
}

// cpuLimit turns the content of cgroup's cpu.max, quota and period, into a number of CPUs, rounded up; 0 for none.
func cpuLimit(cpuMax string) uint {
	words := strings.Fields(cpuMax)
	if len(words) != 2 {
		return 0
	}
	quota, err1 := strconv.ParseUint(words[0], 10, 31)
	period, err2 := strconv.ParseUint(words[1], 10, 31)
	if err1 != nil || err2 != nil || period == 0 {
		return 0
	}
	return uint(math.Ceil(float64(quota) / float64(period)))
}

// levelFlags are the CPU flags, as Linux names them, that each x86-64 level adds.
var levelFlags = []string{
	"lm cmov cx8 fpu fxsr mmx syscall sse sse2",
	"cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3",
	"avx avx2 bmi1 bmi2 f16c fma abm movbe xsave",
	"avx512f avx512bw avx512cd avx512dq avx512vl",
}

// x86Levels reads /proc/cpuinfo and names the micro-architecture levels that the first CPU has. It reads no further: for
// each CPU the kernel has to ask that.
func x86Levels(cpuinfo io.Reader) []string {
	var flags []string
	lines := bufio.NewScanner(cpuinfo)
	lines.Buffer(make([]byte, 4<<10), 1<<20)
	for flags == nil && lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "flags" {
			flags = strings.Fields(value)
		}
	}
	var levels []string
	for i, needed := range levelFlags {
		for _, flag := range strings.Fields(needed) {
			if !slices.Contains(flags, flag) {
				return levels
			}
		}
		levels = append(levels, "x86_64-v"+strconv.Itoa(i+1))
	}
	return levels
}

// maxConfFile bounds what is read of a configuration file.
const maxConfFile = 16 << 20

// hostFS is the FS of this machine.
type hostFS struct{}

func (hostFS) ReadFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxConfFile {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("file is too large")}
	}
	return os.ReadFile(path)
}

func (hostFS) Exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR)
}

func (hostFS) Accessible(path string) bool { return unix.Access(path, unix.R_OK|unix.W_OK) == nil }
