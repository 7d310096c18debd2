package builtin

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// Escape sequences as in upstream's ansicolor.hh.
const (
	ansiNormal  = "\x1b[0m"
	ansiRed     = "\x1b[31;1m"
	ansiMagenta = "\x1b[35;1m"
)

// failure is an error as it appears in the log of a build.
type failure struct {
	text   string   // with colours
	traces []string // what was going on, outermost first, with colours
	cause  error    // nil if the text says it all
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

// Arguments of hintf that are printed otherwise than in magenta.
type (
	plain  string // without colour
	quoted string // a file name, in double quotes
)

// hintf puts the arguments in the place of each %s of the format, in magenta as upstream's HintFmt does.
func hintf(format string, args ...any) string {
	var b strings.Builder
	for _, arg := range args {
		before, after, _ := strings.Cut(format, "%s")
		b.WriteString(before)
		switch arg := arg.(type) {
		case plain:
			b.WriteString(string(arg))
		case quoted:
			b.WriteString(ansiMagenta + `"` + string(arg) + `"` + ansiNormal)
		default:
			b.WriteString(ansiMagenta + fmt.Sprint(arg) + ansiNormal)
		}
		format = after
	}
	b.WriteString(format)
	return b.String()
}

func failf(format string, args ...any) *failure { return &failure{text: hintf(format, args...)} }

// sysFailf is a failure of a system call: the message, a colon, and the error number's text.
func sysFailf(err error, format string, args ...any) *failure {
	text := err.Error()
	var errno unix.Errno
	if errors.As(err, &errno) {
		text = errnoText(errno)
	}
	return &failure{text: hintf("%s: %s", plain(hintf(format, args...)), text), cause: err}
}

// during adds to an error what was going on.
func during(err error, format string, args ...any) error {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = &failure{text: err.Error(), cause: err}
	}
	c := *f
	c.traces = append([]string{hintf(format, args...)}, f.traces...)
	return &c
}

// errorLog is how an error appears in a log: "error: " and the text, further lines indented to match
// (libutil/error.cc, showErrorInfo).
func errorLog(err error) string {
	const prefix = ansiRed + "error:" + ansiNormal + " "
	text := err.Error()
	if f, ok := errors.AsType[*failure](err); ok && len(f.traces) > 0 {
		var b strings.Builder
		for _, trace := range f.traces {
			b.WriteString("\n… " + trace + "\n")
		}
		b.WriteString("\n" + prefix + text)
		text = b.String()
	}
	lines := strings.Split(chomp(text), "\n")
	for i, line := range lines {
		start := prefix
		if i > 0 {
			start = "       "
		}
		lines[i] = chomp(start + line)
	}
	return strings.Join(lines, "\n")
}

// chomp removes white space at the end.
func chomp(s string) string { return strings.TrimRight(s, " \n\r\t") }

// errnoText is the C library's text of an error number; Go's begin with a small letter.
func errnoText(errno unix.Errno) string {
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// isNotExist tells that there is nothing of that name, or that something on the way is not a directory.
func isNotExist(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}
