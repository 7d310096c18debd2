package cgroup

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// setting is a file of a group and the number to write to it.
type setting struct {
	file  string
	value uint64
	// optional settings are not there on every machine.
	optional bool
}

func (s setting) write(dir *os.File) error {
	err := writeAt(dir, s.file, strconv.FormatUint(s.value, 10))
	if s.optional && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// settings are what the kernel is told of the limits, by controller. The first of each is the limit itself.
func (l Limits) settings() (all [][]setting) {
	if l.Memory > 0 {
		all = append(all, []setting{
			{file: "memory.max", value: l.Memory},
			// One process less would leave a build that fails in odd ways.
			{file: "memory.oom.group", value: 1},
			// What is swapped out is beside the limit. Not every machine counts it.
			{file: "memory.swap.max", value: 0, optional: true},
		})
	}
	if l.Processes > 0 {
		all = append(all, []setting{{file: "pids.max", value: l.Processes}})
	}
	return all
}

// limit sets what the group may use.
func (g *Group) limit(l Limits) error {
	for _, settings := range l.settings() {
		for _, s := range settings {
			if err := s.write(g.dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// limitAgain sets the limits that the group does not have, as far as it has the controllers for them now.
func (g *Group) limitAgain(l Limits) error {
	for _, settings := range l.settings() {
		if now, err := readAt(g.dir, settings[0].file); err == nil && now != "max\n" {
			continue
		}
		for _, s := range settings {
			if err := s.write(g.dir); err != nil && !lost(err) {
				return err
			}
		}
	}
	return nil
}

// lost tells of a group that has no longer got the controller, or is no more.
func lost(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) }
