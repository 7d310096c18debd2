package daemon

import (
	"bufio"
	"os"
	"strings"
)

// fileEntry finds the line of a name in /etc/passwd or /etc/group (passwd(5),
// group(5)).
func fileEntry(database, name string) (string, bool) {
	f, err := os.Open("/etc/" + database)
	if err != nil {
		return "", false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), name+":") {
			return lines.Text(), true
		}
	}
	return "", false
}
