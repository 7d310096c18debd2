package overlay

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Mount is how an overlay should be mounted. All are absolute paths.
type Mount struct {
	Dir   string // where it is mounted
	Lower string // the directory beneath
	Upper string // where changes go
}

// mountsFile lists what is mounted for this process, the oldest first (proc_pid_mounts(5)).
const mountsFile = "/proc/self/mounts"

// maxMountLine is longer than any line: the options of a mount are at most a page, and escaping makes of each byte four.
const maxMountLine = 64 << 10

// Check gives upstream's error if the directory is no such overlay.
func (m Mount) Check() error {
	f, err := os.Open(mountsFile)
	if err != nil {
		return fmt.Errorf("check overlay: %w", err)
	}
	defer f.Close()
	return m.checkIn(f)
}

func (m Mount) checkIn(mounts io.Reader) error {
	options := "" // of the last one, which hides those before it
	lines := bufio.NewScanner(mounts)
	lines.Buffer(nil, maxMountLine)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 4 && unescape(fields[1]) == m.Dir {
			options = ""
			if fields[0] == "overlay" || fields[2] == "overlay" {
				options = fields[3]
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", mountsFile, err)
	}
	if !hasOption(options, "lowerdir", m.Lower) || !hasOption(options, "upperdir", m.Upper) {
		return fmt.Errorf("overlay filesystem \"%s\" mounted incorrectly", m.Dir)
	}
	return nil
}

// hasOption looks for an option, which newer kernels may print with a plus where there could be several.
func hasOption(options, name, value string) bool {
	for option := range strings.SplitSeq(options, ",") {
		key, text, _ := strings.Cut(option, "=")
		if strings.TrimSuffix(key, "+") == name && unescape(text) == value && value != "" {
			return true
		}
	}
	return false
}

// unescape undoes what the kernel does to blanks and its like: a backslash and three octal digits.
func unescape(text string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, `\`)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		if n, err := strconv.ParseUint(after[:min(3, len(after))], 8, 8); err == nil && len(after) >= 3 {
			out.WriteByte(byte(n))
			after = after[3:]
		} else {
			out.WriteByte('\\')
		}
		text = after
	}
}
