package view

import "nixdaemon/daemon/status"

// speeds are what has changed between two snapshots, in a second.
type speeds struct {
	cpu   map[string]float64 // of builds, by number: processors
	fetch map[string]float64 // of substitutions, by path: bytes
}

func speedsBetween(before *status.Snapshot, now status.Snapshot) speeds {
	s := speeds{cpu: map[string]float64{}, fetch: map[string]float64{}}
	if before == nil {
		return s
	}
	seconds := now.Time.Sub(before.Time).Seconds()
	if seconds <= 0 {
		return s
	}
	used, fetched := map[string]float64{}, map[string]uint64{}
	for _, server := range before.Servers {
		for _, b := range server.Builds {
			used[b.ID] = b.CPUSeconds
		}
		for _, f := range server.Substitutions {
			fetched[f.Path] = f.Done
		}
	}
	for _, server := range now.Servers {
		for _, b := range server.Builds {
			if was, ok := used[b.ID]; ok && b.CPUSeconds >= was && b.Processes > 0 {
				s.cpu[b.ID] = (b.CPUSeconds - was) / seconds
			}
		}
		for _, f := range server.Substitutions {
			if was, ok := fetched[f.Path]; ok && f.Done >= was {
				s.fetch[f.Path] = float64(f.Done-was) / seconds
			}
		}
	}
	return s
}
