package compat

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// accounts are users that exist only in the /etc of the daemons started with
// them, so that the machine's own are neither needed nor touched.
var accounts = []struct {
	name  string
	uid   int
	gid   int
	group string // of that gid
}{
	{"alice", 61001, 61001, "alice"},
	{"bob", 61002, 61002, "bob"},
	{"mallory", 61003, 61003, "mallory"},
	{"carol", 61004, 61010, "staffers"},
	{"nixbld1", 61101, 61100, "nixbld"},
	{"nixbld2", 61102, 61100, "nixbld"},
	// A daemon kills all processes of a build user, whoever has started them: each script that builds has its own.
	{"outsider1", 61111, 61110, "outsiders"},
	{"insider1", 61121, 61120, "insiders"},
	{"ranger1", 61131, 61130, "rangers"},
	{"killed1", 61151, 61150, "killed"},
	{"killed2", 61152, 61150, "killed"},
	{"recursor1", 61141, 61140, "recursors"},
	{"recursor2", 61142, 61140, "recursors"},
}

// memberships are the groups that list members.
var memberships = map[string]string{
	"wheelers":  "bob",
	"nixbld":    "nixbld1,nixbld2",
	"outsiders": "outsider1", "insiders": "insider1", "rangers": "ranger1",
	"recursors": "recursor1,recursor2",
	"killed":    "killed1,killed2",
}

// account returns the ids of one of the accounts, or those of a number that no
// account has.
func account(name string) (uid, gid int, err error) {
	for _, a := range accounts {
		if a.name == name {
			return a.uid, a.gid, nil
		}
	}
	uid, err = strconv.Atoi(name)
	return uid, uid, err
}

// withAccounts returns argv wrapped such that it sees the accounts in its
// /etc/passwd and /etc/group, in a mount namespace of its own.
func withAccounts(t testing.TB, s scratch, argv []string) []string {
	t.Helper()
	passwd := "root:x:0:0:root:/root:/bin/sh\nsshd:x:61099:65534::/run/sshd:/bin/false\nnobody:x:65534:65534::/nonexistent:/bin/false\n"
	group := "root:x:0:\nnogroup:x:65534:\nwheelers:x:61020:" + memberships["wheelers"] + "\n"
	seen := make(map[string]bool)
	for _, a := range accounts {
		passwd += fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", a.name, a.uid, a.gid, s.path("home"))
		if !seen[a.group] {
			seen[a.group] = true
			group += fmt.Sprintf("%s:x:%d:%s\n", a.group, a.gid, memberships[a.group])
		}
	}
	for name, text := range map[string]string{"passwd": passwd, "group": group} {
		// A server of before may still read the file that it was shown: a new one takes its place.
		next := s.path("etc", name+".next")
		if err := errors.Join(os.WriteFile(next, []byte(text), 0o644), os.Rename(next, s.path("etc", name))); err != nil {
			t.Fatal(err)
		}
	}
	script := `mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group && exec "$@"`
	return append([]string{"unshare", "--mount", "--propagation", "private",
		"/bin/sh", "-c", script, s.path("etc")}, argv...)
}

// otherUsers tells what keeps tests with several users from running.
func otherUsers() error {
	if os.Getuid() != 0 {
		return fmt.Errorf("only root can be other users")
	}
	for _, tool := range []string{"unshare", "setpriv", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	if out, err := exec.Command("unshare", "--mount", "true").CombinedOutput(); err != nil {
		return fmt.Errorf("no mount namespaces here: %s", strings.TrimSpace(string(out)))
	}
	return nil
}

// namespaces tells what keeps builders from being isolated.
func namespaces() error {
	out, err := exec.Command("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "true").CombinedOutput()
	if err != nil {
		return fmt.Errorf("no namespaces here: %v: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// cgroups tells what keeps builds from having cgroups of their own.
func cgroups() error {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[2] != "cgroup2" {
			continue
		}
		dir, err := os.MkdirTemp(fields[1], "nixdaemon-compat")
		if err != nil {
			return fmt.Errorf("no cgroups can be made here: %v", err)
		}
		return os.Remove(dir)
	}
	return fmt.Errorf("no cgroups version 2 here")
}

// asUser returns argv run as one of the accounts.
func asUser(name string, argv []string) ([]string, error) {
	uid, gid, err := account(name)
	if err != nil {
		return nil, fmt.Errorf("no account %q", name)
	}
	return append([]string{"setpriv", "--reuid", strconv.Itoa(uid), "--regid", strconv.Itoa(gid),
		"--clear-groups", "--inh-caps=-all"}, argv...), nil
}
