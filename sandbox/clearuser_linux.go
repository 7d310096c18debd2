package sandbox

import (
	"slices"
	"strconv"
)

// usersIn lists those of count users, from first on, who have living processes.
func usersIn(first, count uint32) ([]uint32, error) {
	pids, err := allPids()
	if err != nil {
		return nil, err
	}
	var found []uint32
	for _, pid := range pids {
		for _, s := range uidsOf(pid) {
			uid, err := strconv.ParseUint(s, 10, 32)
			if err == nil && uint32(uid)-first < count && !slices.Contains(found, uint32(uid)) {
				found = append(found, uint32(uid))
			}
		}
	}
	return found, nil
}
