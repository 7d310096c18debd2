package fstree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// messyTree is what a builder may leave behind.
func messyTree(t *testing.T) (*Dir, string) {
	t.Helper()
	d := tempDir(t)
	root := filepath.Join(d.Path(), "x")
	os.MkdirAll(filepath.Join(root, "sub"), 0o777)
	os.WriteFile(filepath.Join(root, "plain"), []byte("1"), 0o666)
	os.WriteFile(filepath.Join(root, "prog"), []byte("2"), 0o700)
	os.WriteFile(filepath.Join(root, "group-exec"), []byte("2"), 0o610)
	os.WriteFile(filepath.Join(root, "sub", "secret"), []byte("3"), 0o000)
	os.Symlink("plain", filepath.Join(root, "link"))
	os.Link(filepath.Join(root, "plain"), filepath.Join(root, "sub", "again"))
	os.WriteFile(filepath.Join(root, "suid"), []byte("4"), 0o755)
	os.Chmod(filepath.Join(root, "suid"), 0o755|os.ModeSetuid|os.ModeSetgid)
	return d, root
}

func TestCanonicalise(t *testing.T) {
	d, root := messyTree(t)
	if err := d.Canonicalise(ctx, "x", CanonicaliseOptions{}); err != nil {
		t.Fatal(err)
	}
	checkCanonical(t, root)
	for name, want := range map[string]os.FileMode{
		"plain": 0o444, "prog": 0o555, "group-exec": 0o444, "sub/secret": 0o444, "suid": 0o555,
	} {
		st, err := os.Stat(filepath.Join(root, name))
		if err != nil || st.Mode() != want {
			t.Errorf("%s has mode %v, want %v (%v)", name, st.Mode(), want, err)
		}
	}
}

func TestCanonicaliseRemovesAttributes(t *testing.T) {
	d, root := messyTree(t)
	path := filepath.Join(root, "plain")
	if err := unix.Setxattr(path, "user.evil", []byte("1"), 0); err != nil {
		t.Skipf("the file system has no extended attributes: %v", err)
	}
	unix.Setxattr(path, "user.kept", []byte("1"), 0)
	if err := d.Canonicalise(ctx, "x", CanonicaliseOptions{IgnoredACLs: []string{"user.kept"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Getxattr(path, "user.evil", nil); err != unix.ENODATA {
		t.Error("attribute is still there", err)
	}
	if _, err := unix.Getxattr(path, "user.kept", nil); err != nil {
		t.Error("ignored attribute is gone", err)
	}
}

func TestCanonicaliseChecksOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving files away takes root")
	}
	const builder = 30001
	owned := &OwnerRange{builder, builder}
	d, root := messyTree(t)
	filepath.WalkDir(root, func(path string, _ os.DirEntry, _ error) error { return os.Lchown(path, builder, builder) })
	seen := new(Inodes)
	// A second output with a link into the first one.
	os.MkdirAll(filepath.Join(d.Path(), "y"), 0o755)
	os.Link(filepath.Join(root, "plain"), filepath.Join(d.Path(), "y", "shared"))
	os.Lchown(filepath.Join(d.Path(), "y"), builder, builder)
	for _, name := range []string{"x", "y"} {
		if err := d.Canonicalise(ctx, name, CanonicaliseOptions{Owner: owned, Seen: seen}); err != nil {
			t.Fatal(name, err)
		}
	}
	checkCanonical(t, root)

	stranger := filepath.Join(d.Path(), "z", "shadow")
	os.MkdirAll(filepath.Dir(stranger), 0o755)
	os.WriteFile(stranger, []byte("root:x"), 0o600)
	os.Lchown(filepath.Dir(stranger), builder, builder)
	err := d.Canonicalise(ctx, "z", CanonicaliseOptions{Owner: owned, Seen: seen})
	if want := fmt.Sprintf("invalid ownership on file \"%s\"", stranger); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if !errors.As(err, new(*OwnershipError)) {
		t.Error("is not an OwnershipError")
	}
	if st, _ := os.Stat(stranger); st.Mode().Perm() != 0o600 {
		t.Errorf("somebody else's file has mode %v now", st.Mode())
	}
}

func TestCanonicaliseRefuses(t *testing.T) {
	d, root := messyTree(t)
	if err := unix.Mkfifo(filepath.Join(root, "pipe"), 0o666); err != nil {
		t.Fatal(err)
	}
	err := d.Canonicalise(ctx, "x", CanonicaliseOptions{})
	if want := fmt.Sprintf("file \"%s/pipe\" has an unsupported type", root); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	os.MkdirAll(filepath.Join(d.Path(), "deep", strings.Repeat("d/", 64)), 0o755)
	if err := d.Canonicalise(ctx, "deep", CanonicaliseOptions{}); err == nil {
		t.Error("a tree that no archive can hold was accepted")
	}
}
