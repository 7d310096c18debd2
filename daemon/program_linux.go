package daemon

import (
	"bytes"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// atExecFn is the entry of the auxiliary vector that points to the name of the
// file that was executed (getauxval(3)).
const atExecFn = 31

// programPath is what was executed to make this process, as it was named: what
// stands there may be another program by now. The first argument need not be
// it, and /proc/self/exe knows no symbolic links.
func programPath() (string, error) {
	if name := executedName(); name != "" {
		if path, err := filepath.Abs(name); err == nil {
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
	}
	return os.Executable()
}

// executedName is empty if it cannot be found out.
func executedName() string {
	entries, err := unix.Auxv()
	if err != nil {
		return ""
	}
	for _, e := range entries {
		if e[0] != atExecFn {
			continue
		}
		memory, err := os.Open("/proc/self/mem")
		if err != nil {
			return ""
		}
		defer memory.Close()
		name, err := io.ReadAll(io.NewSectionReader(memory, int64(e[1]), unix.PathMax))
		if end := bytes.IndexByte(name, 0); end >= 0 && (err == nil || len(name) > 0) {
			return string(name[:end])
		}
	}
	return ""
}
