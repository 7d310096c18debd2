package darwinexec

import (
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
)

// Main executes the job that args, from [Job.Command], name. It returns only when that failed, with the exit status,
// after it has said why on standard error, which is the build's log.
func Main(args []string) int { return run(args, os.Environ(), execute, os.Stderr) }

func run(args, env []string, execute func(*Job) error, stderr io.Writer) int {
	j, err := parse(args, env)
	if err != nil {
		// Nobody is left to tell if writing fails, here and below.
		_, _ = io.WriteString(stderr, "error: "+err.Error()+"\n")
		return 1
	}
	_, _ = io.WriteString(stderr, complaint(j.Path, execute(j)))
	return 1
}

// complaint is upstream's text for a builder that cannot be executed, as it stands in the log.
func complaint(path string, err error) string {
	text := err.Error()
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		// The C library's texts begin with a capital.
		text = errno.Error()
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return "\x1b[31;1merror:\x1b[0m executing '\x1b[35;1m" + path + "\x1b[0m': " + text
}
