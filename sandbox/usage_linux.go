package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is what /proc counts processor time in; Linux has it so on every architecture (USER_HZ).
const clockTick = time.Second / 100

func usages(builders []int) map[int]Usage {
	pids, err := allPids()
	if err != nil {
		return nil
	}
	samples := make([]sample, 0, len(pids))
	for _, pid := range pids {
		b, err := readProc("/proc/"+strconv.Itoa(pid)+"/stat", statLimit)
		if err != nil {
			continue // it has ended
		}
		if s, err := parseSample(pid, b); err == nil {
			samples = append(samples, s)
		}
	}
	return sumUsages(builders, samples)
}

// parseSample reads /proc/<pid>/stat (proc(5)): times of the process and of the children that it has waited for, and
// its resident pages.
func parseSample(pid int, b []byte) (sample, error) {
	st, err := parseStat(pid, b)
	if err != nil {
		return sample{}, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var ticks uint64
	for _, f := range fields[11:15] {
		n, err := strconv.ParseUint(strings.TrimPrefix(f, "-"), 10, 63)
		if err != nil {
			return sample{}, fmt.Errorf("parse /proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	s := sample{pid: pid, parent: st.parent, group: st.group, session: st.session}
	s.usage.CPU = time.Duration(min(ticks, uint64(1<<62/clockTick))) * clockTick
	if len(fields) > 21 {
		if pages, err := strconv.ParseUint(fields[21], 10, 63); err == nil {
			s.usage.Memory = pages * uint64(os.Getpagesize())
		}
	}
	return s, nil
}
