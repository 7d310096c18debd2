package cgroup

import (
	"errors"
	"strings"
)

// locate finds the directory of this process's cgroup, from the texts of /proc/self/mountinfo and /proc/self/cgroup
// (proc(5), cgroups(7)).
func locate(mountinfo, own string) (string, error) {
	var name string
	for line := range strings.Lines(own) {
		if rest, ok := strings.CutPrefix(line, "0::/"); ok {
			name = "/" + strings.TrimSuffix(rest, "\n")
		}
	}
	err := ErrNone
	for line := range strings.Lines(mountinfo) {
		root, point, ok := cgroupMount(strings.TrimSuffix(line, "\n"))
		if !ok {
			continue
		}
		if name == "" {
			return "", errors.New("cannot determine cgroup name from /proc/self/cgroup")
		}
		// Of a mount of a part of the hierarchy only that part can be reached; above a namespace's root nothing can.
		if rest, ok := below(name, root); ok && !strings.HasPrefix(name, "/..") {
			return strings.TrimSuffix(point+rest, "/"), nil
		}
		err = errors.New("the cgroup '" + name + "' is outside of the mounted cgroups file system")
	}
	return "", err
}

// cgroupMount reads a line of mountinfo: number, parent, device, root, mount point, options, any number of optional
// fields, a dash, type, source, options.
func cgroupMount(line string) (root, point string, ok bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields := strings.Split(before, " ")
	kind, _, _ := strings.Cut(after, " ")
	if !ok || len(fields) < 6 || kind != "cgroup2" {
		return "", "", false
	}
	root, point = unescape(fields[3]), unescape(fields[4])
	return root, point, strings.HasPrefix(root, "/") && strings.HasPrefix(point, "/")
}

// below gives the part of name after root, beginning with a slash unless it is empty.
func below(name, root string) (rest string, ok bool) {
	if root == "/" {
		return name, true
	}
	rest, ok = strings.CutPrefix(name, root)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// unescape undoes the octal escapes of mountinfo: blank, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
