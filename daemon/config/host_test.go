package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestGoSystem(t *testing.T) {
	for _, c := range [][3]string{{"amd64", "linux", "x86_64-linux"}, {"arm64", "darwin", "aarch64-darwin"},
		{"386", "linux", "i686-linux"}, {"riscv64", "linux", "riscv64-linux"}} {
		if got := goSystem(c[0], c[1]); got != c[2] {
			t.Errorf("%v: %s", c, got)
		}
	}
}

func TestCPULimit(t *testing.T) {
	for text, want := range map[string]uint{"max 100000\n": 0, "150000 100000\n": 2, "200000 100000": 2, "1 100000": 1,
		"": 0, "5": 0, "5 0": 0, "x y": 0} {
		if got := cpuLimit(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestX86Levels(t *testing.T) {
	var all []string
	for i, more := range levelFlags {
		all = append(all, more)
		info := "processor : 0\nflags\t\t: " + strings.Join(all, " ") + "\nflags : none\n"
		if got := x86Levels(strings.NewReader(info)); len(got) != i+1 || got[i] != "x86_64-v"+string(rune('1'+i)) {
			t.Errorf("%d: %q", i, got)
		}
	}
	if got := x86Levels(strings.NewReader("flags : " + levelFlags[0] + " " + levelFlags[2])); !slices.Equal(got, []string{"x86_64-v1"}) {
		t.Errorf("a level that lacks the one below: %q", got)
	}
	if got := x86Levels(strings.NewReader("garbage")); got != nil {
		t.Errorf("garbage: %q", got)
	}
}

func TestHostFS(t *testing.T) {
	dir := t.TempDir()
	file, big, link := filepath.Join(dir, "f"), filepath.Join(dir, "big"), filepath.Join(dir, "l")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	if f, err := os.Create(big); err != nil || f.Truncate(maxConfFile+1) != nil || f.Close() != nil {
		t.Fatal(err)
	}
	fs := hostFS{}
	if text, err := fs.ReadFile(file); err != nil || string(text) != "x" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := fs.ReadFile(big); err == nil {
		t.Error("a huge file was read")
	}
	if !fs.Exists(file) || !fs.Exists(link) || fs.Exists(file+"/x") || fs.Exists(dir+"/none") {
		t.Error("Exists is wrong")
	}
	if !fs.Accessible(file) || fs.Accessible(link) {
		t.Error("Accessible is wrong")
	}
}

// TestProcess loads the configuration of a process like this one, with nothing but its host made use of.
func TestProcess(t *testing.T) {
	in := Process()
	in.Args = []string{"nix-daemon", "--store", "local"}
	in.Getenv = func(name string) (string, bool) { return "/nonexistent", name == "NIX_CONF_DIR" }
	in.Home = "/nonexistent"
	c, err := Load(in)
	if err != nil || c.Settings.EffectiveCores() == 0 || !strings.Contains(c.Settings.System, "-") {
		t.Errorf("%+v, %v", c, err)
	}
}
