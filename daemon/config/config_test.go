package config

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/worker/settings"
)

// fakeFS is a made-up machine: path to content. A content of "unreadable" exists and cannot be read; names in
// writable are accessible.
type fakeFS struct {
	files    map[string]string
	writable []string
}

func (f fakeFS) ReadFile(path string) ([]byte, error) {
	text, ok := f.files[path]
	switch {
	case !ok:
		return nil, fs.ErrNotExist
	case text == "unreadable":
		return nil, fs.ErrPermission
	}
	return []byte(text), nil
}

func (f fakeFS) Exists(path string) bool {
	_, ok := f.files[path]
	return ok || f.Accessible(path)
}

func (f fakeFS) Accessible(path string) bool { return slices.Contains(f.writable, path) }

// machine describes one call of Load.
type machine struct {
	args []string
	env  map[string]string
	fs   fakeFS
	user bool // not root
}

func (m machine) input() Input {
	return Input{
		Args:   append([]string{"nix-daemon"}, m.args...),
		Getenv: func(name string) (string, bool) { v, ok := m.env[name]; return v, ok },
		Home:   "/home/u",
		Host:   settings.Environment{System: "x86_64-linux", CPUs: 4, Root: !m.user},
		FS:     m.fs,
	}
}

func (m machine) load(t *testing.T) *Config {
	t.Helper()
	c, err := Load(m.input())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func conf(text string) fakeFS { return fakeFS{files: map[string]string{"/etc/nix/nix.conf": text}} }

func TestPlainStart(t *testing.T) {
	c := machine{}.load(t)
	if c.Mode != ModeSocket || c.Trust != TrustByPeer || c.SocketPath != "/nix/var/nix/daemon-socket/socket" ||
		c.LogFormat != "raw" || c.Settings.Verbosity != settings.LevelInfo || len(c.Warnings) != 0 {
		t.Errorf("%+v", c)
	}
	want := StoreConfig{StoreDir: "/nix/store", StateDir: "/nix/var/nix", LogDir: "/nix/var/log/nix",
		RealDir: "/nix/store", RequireSigs: true, PathInfoCacheSize: 65536, SystemFeatures: c.Settings.SystemFeatures}
	if diff := cmp.Diff(want, c.Store); diff != "" {
		t.Error(diff)
	}
}

func TestPrecedence(t *testing.T) {
	m := machine{
		env: map[string]string{
			"NIX_CONF_DIR": "/conf", "XDG_CONFIG_DIRS": "/x1::/x2",
			"NIX_CONFIG": "timeout = 5\nextra-allowed-users = e",
		},
		fs: fakeFS{files: map[string]string{
			"/conf/nix.conf":               "cores = 1\nmax-jobs = 1\nlog-lines = 1\nmax-silent-time = 1\ntimeout = 1\nmin-free = 1\nallowed-users = a",
			"/x2/nix/nix.conf":             "max-jobs = 2\nlog-lines = 2\nmax-silent-time = 2\ntimeout = 2\nmin-free = 2\nextra-allowed-users = b",
			"/x1/nix/nix.conf":             "log-lines = 3\nmax-silent-time = 3\ntimeout = 3\nmin-free = 3\nextra-allowed-users = c",
			"/home/u/.config/nix/nix.conf": "max-silent-time = 4\ntimeout = 4\nmin-free = 4\nextra-allowed-users = d",
		}},
		args: []string{"--min-free", "6K", "--extra-allowed-users", "f"},
	}
	c := m.load(t)
	got := map[string]string{}
	for _, name := range []string{"cores", "max-jobs", "log-lines", "max-silent-time", "timeout", "min-free", "allowed-users"} {
		got[name], _ = c.Settings.Get(name)
	}
	want := map[string]string{"cores": "1", "max-jobs": "2", "log-lines": "3", "max-silent-time": "4", "timeout": "5",
		"min-free": "6144", "allowed-users": "a b c d e f"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if c.Settings.Overridden("cores") || !c.Settings.Overridden("max-jobs") || !c.Settings.Overridden("min-free") {
		t.Error("what the system's file sets is not an override, everything later is")
	}
}

func TestUserConfFiles(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want []string
	}{
		{nil, []string{"/home/u/.config/nix/nix.conf", "/etc/xdg/nix/nix.conf"}},
		{map[string]string{"XDG_CONFIG_HOME": "/xc", "XDG_CONFIG_DIRS": ""}, []string{"/xc/nix/nix.conf"}},
		{map[string]string{"NIX_CONFIG_HOME": "/nc", "XDG_CONFIG_HOME": "/xc", "XDG_CONFIG_DIRS": "/a:/b"},
			[]string{"/nc/nix.conf", "/a/nix/nix.conf", "/b/nix/nix.conf"}},
		{map[string]string{"NIX_USER_CONF_FILES": ""}, nil},
		{map[string]string{"NIX_USER_CONF_FILES": "/a:/b:"}, []string{"/a", "/b", "."}},
	} {
		if diff := cmp.Diff(c.want, machine{env: c.env}.load(t).UserConfFiles); diff != "" {
			t.Errorf("%v: %s", c.env, diff)
		}
	}
}

func TestIncludes(t *testing.T) {
	files := map[string]string{
		"/etc/nix/nix.conf":   "include sub/a.conf\n!include missing\ninclude /abs.conf # comment\ninclude locked\ntimeout = 9",
		"/etc/nix/sub/a.conf": "cores = 2\ninclude ../b.conf\nmax-jobs = 3\ntimeout = 1",
		"/etc/nix/b.conf":     "extra-experimental-features = auto-allocate-uids", "/abs.conf": "auto-allocate-uids = true",
		"/etc/nix/locked": "unreadable",
	}
	s := machine{fs: fakeFS{files: files}}.load(t).Settings
	if s.Cores != 2 || s.MaxJobs != 3 || s.Timeout != 9 || !s.AutoAllocateUIDs {
		t.Errorf("cores %d, max-jobs %d, timeout %d, auto-allocate-uids %v", s.Cores, s.MaxJobs, s.Timeout, s.AutoAllocateUIDs)
	}
}

// TestFileErrors: what cannot be read as configuration stops the daemon, and says where.
func TestFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"foo":                      `syntax error in configuration line 'foo' in "/etc/nix/nix.conf"`,
		"cores = 1\n  foo bar # x": `syntax error in configuration line '  foo bar ' in "/etc/nix/nix.conf"`,
		"cores=1":                  `syntax error in configuration line 'cores=1' in "/etc/nix/nix.conf"`,
		"include":                  `syntax error in configuration line 'include' in "/etc/nix/nix.conf"`,
		"include a b":              `syntax error in configuration line 'include a b' in "/etc/nix/nix.conf"`,
		"include nope":             `file "/etc/nix/nope" included from "/etc/nix/nix.conf" not found`,
		"include nix.conf":         `file "/etc/nix/nix.conf" included from "/etc/nix/nix.conf": too many includes`,
		"cores = x":                `setting 'cores' has invalid value 'x'`,
		"keep-going =":             `Boolean setting 'keep-going' has invalid value ''`,
		"store = nope":             `Cannot parse Nix store 'nope'`,
		"accept-flake-config = true\nexperimental-features = flakes\naccept-flake-config = x": `Boolean setting 'accept-flake-config' has invalid value 'x'`,
	} {
		_, err := Load(machine{fs: conf(text)}.input())
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
	doubling := fakeFS{files: map[string]string{"/etc/nix/nix.conf": "include a\ninclude a", "/etc/nix/a": "include nix.conf"}}
	if _, err := Load(machine{fs: doubling}.input()); err == nil || !strings.HasSuffix(err.Error(), "too many includes") {
		t.Errorf("files that include each other: %v", err)
	}
}

func TestFileWarnings(t *testing.T) {
	c := machine{fs: conf("zz = 1\nimpure-env = a=b\nexperimental-features = foo\naa = 2\nextra-cores = 3\nplugin-files = /p\nwarn-short-path-literals = 1")}.load(t)
	want := []string{
		"unknown experimental feature 'foo'",
		"Ignoring setting 'impure-env' because experimental feature 'configurable-impure-env' is not enabled",
		"'warn-short-path-literals' is deprecated, use 'lint-short-path-literals = warn' instead",
		"unknown setting 'aa'", "unknown setting 'extra-cores'", "unknown setting 'zz'",
		"ignoring the setting 'plugin-files', because this daemon does not load plugins",
	}
	if diff := cmp.Diff(want, c.Warnings); diff != "" {
		t.Error(diff)
	}
}

// TestEnvironment has one row per variable.
func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		get  func(*Config) string
		want string
	}{
		{map[string]string{"NIX_STATE_DIR": "/s/"}, func(c *Config) string { return c.Store.StateDir + " " + c.SocketPath }, "/s /s/daemon-socket/socket"},
		{map[string]string{"NIX_LOG_DIR": "/l"}, func(c *Config) string { return c.Store.LogDir }, "/l"},
		{map[string]string{"NIX_STORE_DIR": "/a", "NIX_STORE": "/b"}, func(c *Config) string { return c.Store.StoreDir + c.Store.RealDir }, "/a/a"},
		{map[string]string{"NIX_STORE_DIR": "", "NIX_STORE": "/b"}, func(c *Config) string { return c.Store.StoreDir }, "/b"},
		{map[string]string{"NIX_DAEMON_SOCKET_PATH": "/x/../sock"}, func(c *Config) string { return c.SocketPath }, "/sock"},
		{map[string]string{"NIX_DAEMON_SOCKET_PATH": ""}, func(c *Config) string { return c.SocketPath }, "/nix/var/nix/daemon-socket/socket"},
		{map[string]string{"NIX_REMOTE": "local?root=/r"}, func(c *Config) string { return c.Settings.Store + " " + c.Store.Root }, "local://?root=/r /r"},
		{map[string]string{"NIX_REMOTE": ""}, func(c *Config) string { return c.Settings.Store }, "auto"},
		{map[string]string{"NIX_REMOTE_SYSTEMS": "/a::/b"}, func(c *Config) string { return c.Settings.Builders }, "@/a\n@/b"},
		{map[string]string{"NIX_IGNORE_SYMLINK_STORE": "1"}, func(c *Config) string { v, _ := c.Settings.Get("allow-symlinked-store"); return v }, "true"},
		{map[string]string{"NIX_SSL_CERT_FILE": "/n", "SSL_CERT_FILE": "/s"}, func(c *Config) string { return c.Settings.SSLCertFile }, "/n"},
		{map[string]string{"SSL_CERT_FILE": "/s"}, func(c *Config) string { return c.Settings.SSLCertFile }, "/s"},
		{map[string]string{"NIX_CONF_DIR": "/c"}, func(c *Config) string { return c.ConfFile + " " + c.Settings.NetrcFile + " " + c.Settings.Builders }, "/c/nix.conf /c/netrc @/c/machines"},
		{map[string]string{"NIX_CONFIG": "nix-path = a", "NIX_PATH": ""}, func(c *Config) string { v, _ := c.Settings.Get("nix-path"); return v }, ""},
		{map[string]string{"NIX_CONFIG": "nix-path = a"}, func(c *Config) string { v, _ := c.Settings.Get("nix-path"); return v }, "a"},
	} {
		if got := c.get(machine{env: c.env}.load(t)); got != c.want {
			t.Errorf("%v: %q, want %q", c.env, got, c.want)
		}
	}
	for name, want := range map[string]string{"NIX_CONF_DIR": `not an absolute path: "rel"`, "NIX_STATE_DIR": `not an absolute path: "rel"`,
		"NIX_LOG_DIR": `not an absolute path: "rel"`, "NIX_STORE_DIR": `not an absolute path: "rel"`,
		"NIX_REMOTE": "Cannot parse Nix store 'rel'", "NIX_CONFIG": `syntax error in configuration line 'rel' in "NIX_CONFIG"`} {
		if _, err := Load(machine{env: map[string]string{name: "rel"}}.input()); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	if _, err := Load(machine{env: map[string]string{"NIX_CONFIG": "include foo"}}.input()); err == nil || err.Error() != `not an absolute path: "foo"` {
		t.Errorf("relative include in NIX_CONFIG: %v", err)
	}
}

// FuzzConfigFile: any text is configuration or an error, and what one text says never depends on being said twice.
func FuzzConfigFile(f *testing.F) {
	for _, text := range []string{"cores = 4\n", "include /etc/nix/nix.conf", "!include x\n#\n a = b c", "experimental-features = flakes\nuse-registries = no",
		"sandbox-paths = a=b?\nstore = http://x?y=z", "foo", "=", "a =", "max-jobs = auto\r\n\ttimeout\t=\t5"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Load(machine{fs: conf(text)}.input())
		if err != nil {
			return
		}
		again, err := Load(machine{fs: conf(text)}.input())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.Settings.NixConfig(), again.Settings.NixConfig()); diff != "" {
			t.Fatal(diff)
		}
		var usage *settings.UsageError
		if _, err := Load(machine{fs: conf(text + "\nbroken")}.input()); !errors.As(err, &usage) {
			t.Fatalf("a broken last line is passed over: %v", err)
		}
	})
}
