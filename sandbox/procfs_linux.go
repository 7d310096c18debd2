package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// readProc reads a file of /proc whole, up to limit. It goes around package os, which would offer each file to the
// poller: that takes longer than the read, and a build reads several.
func readProc(name string, limit int) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 0, min(limit, 1024))
	for len(b) < limit {
		n, err := unix.Read(fd, b[len(b):min(cap(b), limit)])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return b, err
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = slices.Grow(b, len(b))
		}
	}
	return b, nil
}

// statLimit holds a stat, status or loadavg file, whose only field of variable length is a command name.
const statLimit = 8 << 10

// procStat is what the tree walk needs of /proc/<pid>/stat.
type procStat struct {
	pid, parent, group, session int
	state                       byte
	start                       uint64 // clock ticks since boot
	memory                      bool   // has an address space: no kernel thread, and not yet far into its exit
}

// living says that the process can still run or be made to.
func (s procStat) living() bool { return s.state != 'Z' && s.state != 'X' && s.state != 'x' }

func readStat(pid int) (procStat, error) {
	b, err := readProc("/proc/"+strconv.Itoa(pid)+"/stat", statLimit)
	if err != nil {
		return procStat{}, err
	}
	return parseStat(pid, b)
}

// parseStat skips the command name, which the process chooses and which may contain anything, by its last parenthesis.
func parseStat(pid int, b []byte) (procStat, error) {
	end := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[end+1:]))
	if end < 0 || len(fields) < 21 {
		return procStat{}, fmt.Errorf("parse /proc/%d/stat: %q", pid, b)
	}
	s := procStat{pid: pid, state: fields[0][0]}
	for i, dst := range []*int{&s.parent, &s.group, &s.session} {
		n, err := strconv.Atoi(fields[1+i])
		if err != nil {
			return procStat{}, fmt.Errorf("parse /proc/%d/stat: %w", pid, err)
		}
		*dst = n
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("parse /proc/%d/stat: %w", pid, err)
	}
	s.start, s.memory = start, fields[20] != "0"
	return s, nil
}

// allPids lists every process.
func allPids() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// lastPid is the process id given out most recently.
func lastPid() (int, error) {
	b, err := readProc("/proc/loadavg", statLimit)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) == 0 {
		return 0, fmt.Errorf("parse /proc/loadavg: %q", b)
	}
	return strconv.Atoi(fields[len(fields)-1])
}

// processesOf lists the living processes one of whose uids (real, effective, saved, file system) is uid.
func processesOf(uid uint32) ([]int, error) {
	pids, err := allPids()
	if err != nil {
		return nil, err
	}
	want := strconv.FormatUint(uint64(uid), 10)
	return slices.DeleteFunc(pids, func(pid int) bool { return !slices.Contains(uidsOf(pid), want) }), nil
}

// uidsOf reads /proc/<pid>/status, since the owner of /proc/<pid> is root for whoever has changed its uid. Processes that
// have ended have none.
func uidsOf(pid int) []string {
	b, err := readProc("/proc/"+strconv.Itoa(pid)+"/status", statLimit)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		if state, ok := strings.CutPrefix(line, "State:"); ok {
			if state = strings.TrimSpace(state); strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X") {
				return nil
			}
		}
		if uids, ok := strings.CutPrefix(line, "Uid:"); ok {
			return strings.Fields(uids)
		}
	}
	return nil
}
