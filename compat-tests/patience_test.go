package compat

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// patience is how long a daemon of ours may take. A machine with other things to do takes longer for everything, so that
// a time alone says little: the limit is a time on a quiet machine and, where that is longer, what the same machine
// takes for so many steps of work at the same moment.
type patience struct {
	least time.Duration
	steps int
}

// A step takes about ten milliseconds of processor time and a write to the disk: on a quiet machine the steps are over
// before the time is.
var (
	startPatience = patience{6 * time.Second, 250}
	stopPatience  = patience{10 * time.Second, 400}
)

// atOnce is how long nobody counts steps: mostly things are done by then, and steps cost something.
const atOnce = 2 * time.Second

// end gives a channel that is closed when the patience is at its end, unless done was closed before. Steps are made by
// starting a program, which says no more than its version, and in a directory.
func (p patience) end(done <-chan struct{}, program, dir string) <-chan struct{} {
	ended := make(chan struct{})
	least := time.NewTimer(p.least)
	go func() {
		defer least.Stop()
		select {
		case <-done:
			return
		case <-time.After(min(atOnce, p.least)):
		}
		for range p.steps {
			select {
			case <-done:
				return
			default:
			}
			if workStep(program, dir) != nil {
				break // without a measure the time has to do
			}
		}
		select {
		case <-done:
		case <-least.C:
			close(ended)
		}
	}()
	return ended
}

func workStep(program, dir string) error {
	if err := exec.Command(program, "--version").Run(); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, ".step"))
	if err != nil {
		return err
	}
	_, err = f.WriteString("step")
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
}

// pollPatiently calls f until it returns nil, and gives its error when the patience is at its end.
func pollPatiently(p patience, program, dir string, f func() error) error {
	done := make(chan struct{})
	defer close(done)
	if err := pollUntil(p.end(done, program, dir), f); err != nil {
		return fmt.Errorf("not within %v, nor while the machine did %d steps: %w", p.least, p.steps, err)
	}
	return nil
}

func TestPatience(t *testing.T) {
	dir := t.TempDir()
	calls := 0
	never := func() error { calls++; return errors.New("never") }
	began := time.Now()
	err := pollPatiently(patience{50 * time.Millisecond, 3}, "/bin/true", dir, never)
	if err == nil || calls == 0 || time.Since(began) < 50*time.Millisecond {
		t.Errorf("%d calls, %v", calls, err)
	}
	if err := pollPatiently(patience{time.Millisecond, 1}, "/bin/false", dir, never); err == nil {
		t.Error("nobody measures, and it goes on")
	}
	calls = 0
	third := func() error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	}
	if err := pollPatiently(patience{time.Hour, 1 << 30}, "/bin/true", dir, third); err != nil {
		t.Error(err)
	}
	// A daemon that does not end is found out.
	d := &daemon{program: shared.daemon, exited: make(chan struct{}), cmd: exec.Command("sleep", "600")}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { d.cmd.Process.Kill(); d.cmd.Wait() }()
	if err := d.awaitEnd(patience{time.Millisecond, 2}, dir); err == nil {
		t.Error("a daemon that goes on has ended")
	}
}
