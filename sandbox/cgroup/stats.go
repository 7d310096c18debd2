package cgroup

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// Stats are what all processes of a group have used together.
type Stats struct {
	CPUUser, CPUSystem time.Duration
}

// Usage is what the processes of a group take at one moment.
type Usage struct {
	CPU       time.Duration
	Memory    uint64 // bytes, caches of files included; 0 if not counted
	Processes int    // 0 if not counted
}

// ReadUsage tells what the group at a path takes. The group may end meanwhile, which is an error.
func ReadUsage(path string) (Usage, error) {
	dir, err := openGroup(path)
	if err != nil {
		return Usage{}, err
	}
	defer dir.Close()
	s, err := readStats(dir)
	u := Usage{CPU: s.CPUUser + s.CPUSystem}
	if err != nil {
		return u, err
	}
	// Controllers that are not there have no files.
	if n, err := readNumber(dir, "memory.current"); err == nil {
		u.Memory = n
	}
	if n, err := readNumber(dir, "pids.current"); err == nil {
		u.Processes = int(n)
	}
	return u, nil
}

func readNumber(dir *os.File, name string) (uint64, error) {
	text, err := readAt(dir, name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(text), 10, 62)
}

func readStats(dir *os.File) (Stats, error) {
	text, err := readAt(dir, "cpu.stat")
	return parseStats(text), err
}

// parseStats reads the two lines of cpu.stat that count here, in microseconds. What is not there is 0.
func parseStats(text string) Stats {
	var s Stats
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || n > uint64((1<<63-1)/time.Microsecond) {
			continue
		}
		switch name {
		case "user_usec":
			s.CPUUser = time.Duration(n) * time.Microsecond
		case "system_usec":
			s.CPUSystem = time.Duration(n) * time.Microsecond
		}
	}
	return s
}
