package daemon

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// jsonLog opens what the setting json-log-path names, for one connection: a
// file, to which lines are appended, or a socket on which somebody listens. It
// is nil without the setting. Errors are in upstream's words (libutil/logging.cc,
// makeJSONLogger).
func jsonLog(path string) func() (io.WriteCloser, error) {
	if path == "" {
		return nil
	}
	return func() (io.WriteCloser, error) {
		if info, err := os.Stat(path); err == nil && info.Mode().Type() == os.ModeSocket {
			return dialLog(path)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return nil, fmt.Errorf("opening log file \"%s\": %s", path, reason(err))
		}
		return patientWriter{f}, nil
	}
}

func dialLog(path string) (io.WriteCloser, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to socket at \"%s\": %s", path, reason(err))
	}
	return patientWriter{conn}, nil
}

// reason is what the system says, in the words of the C library.
func reason(err error) string {
	var number unix.Errno
	if errors.As(err, &number) {
		return upperFirst(number.Error())
	}
	return err.Error()
}

func upperFirst(s string) string {
	if s != "" && 'a' <= s[0] && s[0] <= 'z' {
		return string(s[0]-'a'+'A') + s[1:]
	}
	return s
}

// logPatience is how long a build waits for whoever reads its log from a pipe
// or a socket, before it is dropped.
const logPatience = 10 * time.Second

// patientWriter gives up on who does not read.
type patientWriter struct{ logFile }

type logFile interface {
	io.WriteCloser
	SetWriteDeadline(time.Time) error
}

func (w patientWriter) Write(p []byte) (int, error) {
	// Regular files have no deadlines and need none.
	_ = w.SetWriteDeadline(time.Now().Add(logPatience))
	return w.logFile.Write(p)
}
