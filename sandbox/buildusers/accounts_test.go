package buildusers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseGroup(t *testing.T) {
	tests := []struct {
		line string
		want Group
		ok   bool
	}{
		{"nixbld:x:30000:nixbld1,nixbld2", Group{"nixbld", 30000, []string{"nixbld1", "nixbld2"}}, true},
		{"nixbld:x:30000:", Group{"nixbld", 30000, nil}, true},
		{"a:*:1:b, c,", Group{"a", 1, []string{"b", "c"}}, true},
		{"max:x:4294967295:", Group{"max", 4294967295, nil}, true},
		{"", Group{}, false},
		{"# comment:x:1:", Group{}, false},
		{"+:::", Group{}, false},
		{"-nis:x:3:", Group{}, false},
		{":x:3:", Group{}, false},
		{"a:x:-1:", Group{}, false},
		{"a:x:4294967296:", Group{}, false},
		{"a:x:1", Group{}, false},
	}
	for _, tt := range tests {
		if got, ok := parseGroup(tt.line); ok != tt.ok || !cmp.Equal(got, tt.want) {
			t.Errorf("%q: got %+v, %v; want %+v, %v", tt.line, got, ok, tt.want, tt.ok)
		}
	}
}

func TestParseUser(t *testing.T) {
	tests := []struct {
		line string
		want User
		ok   bool
	}{
		{"nixbld1:x:30001:30000:Nix build user 1:/var/empty:/sbin/nologin", User{"nixbld1", 30001, 30000}, true},
		{"a:x:1:2:::", User{"a", 1, 2}, true},
		{"a:x:1:2:", User{}, false},
		{"a:x::2:::", User{}, false},
		{"a:x:1:x:::", User{}, false},
		{"+nis:x:1:2:::", User{}, false},
	}
	for _, tt := range tests {
		if got, ok := parseUser(tt.line); ok != tt.ok || got != tt.want {
			t.Errorf("%q: got %+v, %v; want %+v, %v", tt.line, got, ok, tt.want, tt.ok)
		}
	}
}

func TestGroupFromDirectory(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"one line", "GroupMembership: _nixbld1 _nixbld2\nPrimaryGroupID: 350\n", "nixbld:*:350:_nixbld1,_nixbld2"},
		{"long list", "GroupMembership:\n _nixbld1 _nixbld2\nPrimaryGroupID: 350\n", "nixbld:*:350:_nixbld1,_nixbld2"},
		{"no members", "No such key: GroupMembership\nPrimaryGroupID: 350\n", "nixbld:*:350:"},
		{"no id", "GroupMembership: a\n", ""},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		if got := groupFromDirectory("nixbld", tt.text); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Whatever is accepted, written out again, reads as the same.
func FuzzAccountLines(f *testing.F) {
	f.Add("nixbld:x:30000:nixbld1,nixbld2")
	f.Add("nixbld1:x:30001:30000:Nix build user 1:/var/empty:/sbin/nologin")
	f.Add("+::0:0:::")
	f.Add(":::,,,")
	f.Fuzz(func(t *testing.T, line string) {
		if g, ok := parseGroup(line); ok {
			again, ok := parseGroup(fmt.Sprintf("%s:x:%d:%s", g.Name, g.GID, strings.Join(g.Members, ",")))
			if !ok || !cmp.Equal(g, again) {
				t.Errorf("group %q: %+v became %+v", line, g, again)
			}
		}
		if u, ok := parseUser(line); ok {
			if again, ok := parseUser(fmt.Sprintf("%s:x:%d:%d:::", u.Name, u.UID, u.GID)); !ok || again != u {
				t.Errorf("user %q: %+v became %+v", line, u, again)
			}
		}
	})
}

func TestSystemAgreesWithOS(t *testing.T) {
	self, err := user.Current()
	if err != nil {
		t.Skipf("needs an account of the current user: %v", err)
	}
	s := &System{}
	u, err := s.User(context.Background(), self.Username)
	if err != nil || strconv.Itoa(int(u.UID)) != self.Uid || strconv.Itoa(int(u.GID)) != self.Gid {
		t.Fatalf("got %+v, %v; want %+v", u, err, self)
	}
	gids, err := s.GroupsOf(context.Background(), u)
	if err != nil {
		t.Fatal(err)
	}
	want, err := self.GroupIds()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, gid := range gids {
		got = append(got, strconv.Itoa(int(gid)))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !cmp.Equal(got, want) {
		t.Errorf("groups: got %v, want %v", got, want)
	}
}

func TestSystemUnknownNames(t *testing.T) {
	s := &System{}
	for _, name := range []string{"no-such-account", "", "0", "--version", "a:b"} {
		if g, err := s.Group(context.Background(), name); !errors.Is(err, ErrNotFound) {
			t.Errorf("group %q: got %+v, %v; want ErrNotFound", name, g, err)
		}
		if u, err := s.User(context.Background(), name); !errors.Is(err, ErrNotFound) {
			t.Errorf("user %q: got %+v, %v; want ErrNotFound", name, u, err)
		}
	}
}

// The program found first in PATH stands in for a machine whose accounts are elsewhere.
func TestSystemAsksGetent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux, where getent is what is asked")
	}
	dir := t.TempDir()
	script := `#!/bin/sh
echo "$@" >>` + dir + `/asked
case "$1 $2" in
  "group far-group" | "group 70000") echo 'far-group:*:70000:far-user'; echo 'second:line:1:' ;;
  "passwd far-user" | "passwd 70001") echo 'far-user:*:70001:70002:Far:/:/bin/false' ;;
  "initgroups far-user") echo 'far-user              70000 70003' ;;
  "group broken") exit 9 ;;
  *) exit 2 ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "getent"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s := &System{}
	ctx := context.Background()
	for range 3 {
		if g, err := s.Group(ctx, "far-group"); err != nil || !cmp.Equal(g, Group{"far-group", 70000, []string{"far-user"}}) {
			t.Fatalf("group: got %+v, %v", g, err)
		}
	}
	u, err := s.User(ctx, "far-user")
	if err != nil || u != (User{"far-user", 70001, 70002}) {
		t.Fatalf("user: got %+v, %v", u, err)
	}
	if again, err := s.UserByID(ctx, 70001); err != nil || again != u {
		t.Errorf("by id: got %+v, %v", again, err)
	}
	if g, err := s.GroupByID(ctx, 70000); err != nil || g.Name != "far-group" {
		t.Errorf("group by id: got %+v, %v", g, err)
	}
	gids, err := s.GroupsOf(ctx, u)
	if err != nil || !cmp.Equal(gids, []uint32{70002, 70000, 70003}) {
		t.Errorf("groups: got %v, %v", gids, err)
	}
	if _, err := s.Group(ctx, "broken"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("broken directory: got %v", err)
	}
	asked, err := os.ReadFile(dir + "/asked")
	if err != nil || strings.Count(string(asked), "group far-group\n") != 1 {
		t.Errorf("answers are not kept: %v\n%s", err, asked)
	}
}

// A directory service that does not answer holds up nobody whose account is in the files.
func TestSystemSlowGetent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux, where getent is what is asked")
	}
	dir := t.TempDir()
	var pipes [2]*os.File // what it was asked, and that it may answer
	for i := range pipes {
		name := filepath.Join(dir, strconv.Itoa(i))
		if err := unix.Mkfifo(name, 0o600); err != nil {
			t.Fatal(err)
		}
		pipe, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer pipe.Close()
		pipes[i] = pipe
	}
	script := "#!/bin/sh\necho asked >" + dir + "/0\n[ $1 = group ] || read line <" + dir + "/1\nexit 2\n"
	if err := os.WriteFile(filepath.Join(dir, "getent"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s := &System{}
	slow := make(chan error)
	go func() {
		_, err := s.User(context.Background(), "far-user")
		slow <- err
	}()
	if _, err := io.ReadFull(pipes[0], make([]byte, len("asked\n"))); err != nil {
		t.Fatal(err)
	}
	if u, err := s.UserByID(context.Background(), 0); err != nil || u.Name != "root" {
		t.Errorf("got %+v, %v", u, err)
	}
	if g, err := s.Group(context.Background(), "far-group"); !errors.Is(err, ErrNotFound) {
		t.Errorf("another question: got %+v, %v", g, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.User(ctx, "far-user"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("no patience: got %v", err)
	}
	if _, err := pipes[1].WriteString("go on\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-slow; !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestAccountFileIsReadAgainWhenChanged(t *testing.T) {
	name := filepath.Join(t.TempDir(), "group")
	var f accountFile[Group]
	read := func() int {
		t.Helper()
		groups, err := f.read(name, parseGroup)
		if err != nil {
			t.Fatal(err)
		}
		return len(groups)
	}
	if n := read(); n != 0 {
		t.Errorf("no file: got %d groups", n)
	}
	for n, text := range []string{"", "a:x:1:\n", "a:x:1:\n# no\nb:x:2:c"} {
		// As the system's tools do: a new file takes the old one's place.
		if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := read(); got != n {
				t.Errorf("%q: got %d groups, want %d", text, got, n)
			}
		}
	}
}
