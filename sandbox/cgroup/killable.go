package cgroup

import (
	"os"
	"strconv"
	"strings"
)

// The kernel never kills for want of memory who has unkillable; all above it may be killed (proc(5)).
const (
	scoreFile  = "/proc/self/oom_score_adj"
	unkillable = -1000
)

// Killable lets this process, and what it starts from now on, be killed for want of memory, and tells whether that is
// new: a service can be exempt from it, and its builders with it. Such a builder would never end at its
// [Limits.Memory], but try for ever to get more.
func Killable() (changed bool, err error) {
	text, err := os.ReadFile(scoreFile)
	if err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(unkillable) {
		return false, err
	}
	err = os.WriteFile(scoreFile, []byte(strconv.Itoa(unkillable+1)), 0)
	return err == nil, err
}
