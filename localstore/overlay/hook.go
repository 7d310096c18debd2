package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// Hook gives a function that runs a program with the store directory as its argument, and fails in upstream's words if the
// program does (libutil/unix/processes.cc, runProgram). It ends with the context.
func Hook(program string) func(ctx context.Context, storeDir string) error {
	return func(ctx context.Context, storeDir string) error {
		cmd := exec.CommandContext(ctx, program, storeDir)
		cmd.Stderr = os.Stderr
		err := cmd.Run()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		return fmt.Errorf("program \"%s\" %s", program, status(err))
	}
}

// status says how a program failed. One that cannot be run at all is as one that says so itself.
func status(err error) string {
	exit, ran := errors.AsType[*exec.ExitError](err)
	if !ran {
		fmt.Fprintln(os.Stderr, "error:", err)
		return "failed with exit code 1"
	}
	if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return fmt.Sprintf("failed due to signal %d (%s)", int(s.Signal()), signalText(s.Signal()))
	}
	return fmt.Sprintf("failed with exit code %d", exit.ExitCode())
}

// signalText begins with a capital, as the C library's.
func signalText(s syscall.Signal) string {
	text := s.String()
	return string(text[0]&^0x20) + text[1:]
}
