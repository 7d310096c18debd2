package buildusers

import (
	"context"
	"errors"
	"os/exec"
	"strings"
)

// askSystem asks the name service switch through the getent program, since a static binary cannot load the C
// library's modules. It returns the line of the entry of that name or number, or "" if there is none.
func askSystem(ctx context.Context, database, name string) (string, error) {
	program, err := exec.LookPath("getent")
	if err != nil {
		// A machine without the program has no more than the files.
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, database, name).Output()
	var exit *exec.ExitError
	// 1: no such database in this libc; 2: no such key.
	if errors.As(err, &exit) && (exit.ExitCode() == 1 || exit.ExitCode() == 2) {
		return "", nil
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line, err
}
