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
