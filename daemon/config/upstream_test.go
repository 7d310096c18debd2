package config

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// findUpstream returns the bin directory of release 2.34.8: NIXDAEMON_UPSTREAM, or where PATH has nix.
func findUpstream(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("NIXDAEMON_UPSTREAM")
	if dir == "" {
		nix, err := exec.LookPath("nix")
		if err != nil {
			t.Skip("no upstream nix: set NIXDAEMON_UPSTREAM to the bin directory of release 2.34.8")
		}
		dir = filepath.Dir(nix)
	}
	// Upstream speaks of its own program by its real name.
	if nix, err := filepath.EvalSymlinks(filepath.Join(dir, "nix")); err == nil {
		dir = filepath.Dir(nix)
	}
	out, err := exec.Command(filepath.Join(dir, "nix"), "--version").Output()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), " 2.34.8") {
		t.Skipf("%s does not hold release 2.34.8: %s (%v)", dir, out, err)
	}
	return dir
}

// scene is a configuration directory and variables that both programs see.
type scene struct {
	dir string
	env map[string]string
}

func newScene(t *testing.T, files map[string]string) scene {
	t.Helper()
	s := scene{dir: t.TempDir(), env: map[string]string{}}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.env["NIX_CONF_DIR"], s.env["HOME"], s.env["NIX_REMOTE"] = s.dir, s.dir, "auto"
	s.env["NIX_USER_CONF_FILES"] = filepath.Join(s.dir, "user.conf") + ":" + filepath.Join(s.dir, "second.conf")
	return s
}

// upstream runs a program of the reference, and returns its output and its warnings and errors as lines.
func (s scene) upstream(t *testing.T, program string, args ...string) (stdout string, lines []string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	for _, name := range []string{"NIX_BIN_DIR", "NIX_DATA_DIR", "NIX_LIBEXEC_DIR", "PATH", "LD_LIBRARY_PATH"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	for name, value := range s.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && stderr.Len() == 0 {
		t.Fatal(err)
	}
	for line := range strings.Lines(stderr.String()) {
		if !strings.HasPrefix(line, "Try '") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return string(out), lines
}

// ours loads the same, and returns the same.
func (s scene) ours(args ...string) (*Config, []string) {
	in := Process()
	in.Args = append([]string{"nix-daemon"}, args...)
	in.Getenv = func(name string) (string, bool) { v, ok := s.env[name]; return v, ok }
	in.Home = s.dir
	c, err := Load(in)
	var lines []string
	for _, w := range c.Warnings {
		lines = append(lines, "warning: "+w)
	}
	if err != nil {
		lines = append(lines, "error: "+err.Error())
	}
	return c, lines
}

// TestUpstreamConfigurations shows every setting's value for a table of configurations, beside the reference.
func TestUpstreamConfigurations(t *testing.T) {
	nix := filepath.Join(findUpstream(t), "nix")
	const enable = "extra-experimental-features = nix-command\n"
	for name, files := range map[string]map[string]string{
		"empty":      {},
		"user files": {"nix.conf": "cores = 1\ntimeout = 1\nallowed-users = a", "user.conf": "timeout = 3\nextra-allowed-users = c", "second.conf": "timeout = 2\nextra-allowed-users = b"},
		"includes":   {"nix.conf": "include a\n!include none\n  cores =   5 # c\n#x\n\n", "a": "max-jobs=x = 1\nmax-jobs = 7\ninclude b", "b": "substituters = http://a  daemon"},
		"unknown":    {"nix.conf": "zz = 1\naa = 2\nextra-cores = 3\nuse-xdg-base-directories = yes"},
		"guarded":    {"nix.conf": "impure-env = a=b\nuse-registries = false\nauto-allocate-uids = true"},
		"features":   {"nix.conf": "impure-env = a=b\nextra-experimental-features = configurable-impure-env flakes", "user.conf": "extra-experimental-features = foo"},
		"last wins":  {"nix.conf": "cores = 1\nbuild-cores = 2\ncores = 3\nextra-trusted-users = x\ntrusted-users = y"},
		"no newline": {"nix.conf": "cores = 8\r\n\tfallback\t=\t1"},
		"bad value":  {"nix.conf": "cores = nine"},
		"bad line":   {"nix.conf": "cores = 9\n  what is this # comment"},
		"not found":  {"nix.conf": "include nope"},
		"no value":   {"nix.conf": "keep-going ="},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, files)
			s.env["NIX_CONFIG"] = enable
			stdout, lines := s.upstream(t, nix, "config", "show")
			c, ourLines := s.ours()
			if diff := cmp.Diff(lines, ourLines); diff != "" {
				t.Errorf("messages (-upstream +ours):\n%s", diff)
			}
			if stdout == "" {
				return
			}
			// Where a static shell is found differs between builds of upstream; its default is worker/settings' to test.
			stdout, shown := dropLine(strings.TrimRight(stdout, "\n")+"\n", "sandbox-paths = "), ""
			for name, value := range c.Settings.All() {
				switch name {
				case "pure-eval": // the nix command turns it on for itself
					value = "true"
				case "build-hook": // upstream's own program
					value = nix + " __build-remote"
				}
				shown += name + " = " + value + "\n"
			}
			if diff := cmp.Diff(stdout, dropLine(shown, "sandbox-paths = ")); diff != "" {
				t.Errorf("settings (-upstream +ours):\n%s", diff)
			}
		})
	}
}

// TestUpstreamFlags compares what each refused command line says. --version comes last so that neither would start.
func TestUpstreamFlags(t *testing.T) {
	daemon := filepath.Join(findUpstream(t), "nix-daemon")
	for words := range badFlags {
		s := newScene(t, nil)
		args := append(strings.Fields(words), "--version")
		_, want := s.upstream(t, daemon, args...)
		if _, got := s.ours(args...); !cmp.Equal(want, got) {
			t.Errorf("%s\nupstream %q\nours     %q", words, want, got)
		}
	}
}

// TestUpstreamStores compares the texts about stores that cannot be opened.
func TestUpstreamStores(t *testing.T) {
	daemon := filepath.Join(findUpstream(t), "nix-daemon")
	for uri := range badStores {
		s := newScene(t, nil)
		for name, dir := range map[string]string{"NIX_STATE_DIR": "state", "NIX_STORE_DIR": "store", "NIX_LOG_DIR": "log"} {
			s.env[name] = filepath.Join(s.dir, dir)
		}
		_, want := s.upstream(t, daemon, "--stdio", "--build-users-group", "", "--store", uri)
		if _, got := s.ours("--stdio", "--build-users-group", "", "--store", uri); !cmp.Equal(want, got) {
			t.Errorf("%s\nupstream %q\nours     %q", uri, want, got)
		}
	}
}

// TestUpstreamVersion compares the long answer.
func TestUpstreamVersion(t *testing.T) {
	daemon := filepath.Join(findUpstream(t), "nix-daemon")
	s := newScene(t, nil)
	want, _ := s.upstream(t, daemon, "-v", "--store", "local?root=/r&store=/s", "--version")
	c, lines := s.ours("-v", "--store", "local?root=/r&store=/s", "--version")
	if diff := cmp.Diff(want, c.VersionText("2.34.8")); diff != "" || len(lines) != 0 {
		t.Errorf("(-upstream +ours):\n%s\n%q", diff, lines)
	}
}

// dropLine leaves out the line that begins with prefix.
func dropLine(text, prefix string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, prefix) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}
