package sandbox

import "time"

// Usage is what a builder with all that it has started takes at one moment.
type Usage struct {
	// CPU is the processor time so far, of those processes also that have ended and were waited for.
	CPU time.Duration
	// Memory is how many bytes are resident, pages that processes share counted for each.
	Memory uint64
	// Processes is how many there are.
	Processes int
}

// Usages tells what builders take, by process id. It looks at each process of the machine once, however many builders
// there are. Builders that have ended are left out, as are all where the system does not tell. Processes that have
// left their builder's session, group and ancestry do not count.
func Usages(builders []int) map[int]Usage {
	if len(builders) == 0 {
		return nil
	}
	return usages(builders)
}

// sample is a process when it was looked at.
type sample struct {
	pid, parent, group, session int
	usage                       Usage
}

// sumUsages adds up what belongs to each builder.
func sumUsages(builders []int, samples []sample) map[int]Usage {
	byPid := make(map[int]*sample, len(samples))
	for i := range samples {
		byPid[samples[i].pid] = &samples[i]
	}
	owner := make(map[int]int, len(samples)) // 0 is nobody
	sums := make(map[int]Usage, len(builders))
	for _, b := range builders {
		if byPid[b] != nil {
			owner[b], sums[b] = b, Usage{}
		}
	}
	for i := range samples {
		s := &samples[i]
		b := ownerOf(s, byPid, owner)
		if b == 0 {
			continue
		}
		u := sums[b]
		u.CPU += s.usage.CPU
		u.Memory += s.usage.Memory
		u.Processes++
		sums[b] = u
	}
	return sums
}

// ownerOf follows the ancestry of a process up to a builder, or to one whose owner is known.
func ownerOf(s *sample, byPid map[int]*sample, owner map[int]int) int {
	var way []int
	found := 0
	for at, steps := s, 0; at != nil && steps <= len(byPid); at, steps = byPid[at.parent], steps+1 {
		if o, known := owner[at.pid]; known {
			found = o
			break
		}
		way = append(way, at.pid)
		if o := owner[at.session]; o == at.session && o != 0 {
			found = o
			break
		}
		if o := owner[at.group]; o == at.group && o != 0 {
			found = o
			break
		}
	}
	for _, pid := range way {
		owner[pid] = found
	}
	return found
}
