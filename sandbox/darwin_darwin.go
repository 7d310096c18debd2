package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// unsupported names what this system cannot do of what s asks for.
func (s *Spec) unsupported() string {
	if s.Cgroup != nil {
		return "control groups"
	}
	return ""
}

// steps is the process to fork for s, with the profile in its place.
func (s *Spec) steps() (*Spec, error) {
	if s.User != nil {
		// Left by what used this user before, which need not have been us.
		removeIPC(s.User.UID)
	}
	if s.Darwin == nil {
		return s, nil
	}
	self, err := os.Executable()
	if err == nil {
		// Profiles speak of real paths.
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return nil, fmt.Errorf("find program that starts builders: %w", err)
	}
	first, text, err := s.throughSteps(self)
	if err != nil || text == "" {
		return first, err
	}
	return first, writeProfile(s.profileFile(), text)
}

// writeProfile makes the file anew: one of that name is from a daemon that was killed, or from an attempt to fork.
// The builder's user reads it.
func writeProfile(name, text string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old sandbox profile: %w", err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o444)
	if err != nil {
		return fmt.Errorf("write sandbox profile: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Chmod(0o444), f.Close()); err != nil {
		return fmt.Errorf("write sandbox profile: %w", err)
	}
	return nil
}

// tidy removes what a builder has left outside of its directory once nothing of it runs. A rest is only garbage, and
// what starts the next builder with this directory or user removes it.
func (s *Spec) tidy() {
	if s.Darwin != nil && s.Darwin.Profile != nil {
		_ = os.Remove(s.profileFile())
	}
	if s.User != nil {
		removeIPC(s.User.UID)
	}
}
