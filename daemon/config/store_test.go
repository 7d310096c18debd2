package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/worker/settings"
)

// storeFor loads with that store and returns it with its warnings.
func storeFor(t *testing.T, uri string, m machine) (StoreConfig, []string) {
	t.Helper()
	m.args = append(m.args, "--store", uri)
	c := m.load(t)
	return c.Store, c.Warnings
}

func TestLocalStores(t *testing.T) {
	type dirs struct{ Store, Root, State, Log, Real string }
	plain := dirs{"/nix/store", "", "/nix/var/nix", "/nix/var/log/nix", "/nix/store"}
	rooted := dirs{"/nix/store", "/r", "/r/nix/var/nix", "/r/nix/var/log/nix", "/r/nix/store"}
	for uri, want := range map[string]dirs{
		"": plain, "auto": plain, "local": plain, "local://": plain, "local?root=": plain,
		"local?root=/r": rooted, "/r/": rooted, "local:///r": rooted, "auto?root=/r": rooted, "local:///x?root=/r": rooted,
		"local?store=/s":                 {"/s", "", "/nix/var/nix", "/nix/var/log/nix", "/s"},
		"local?root=/r&store=/s":         {"/s", "/r", "/r/nix/var/nix", "/r/nix/var/log/nix", "/r/nix/store"},
		"local?root=/r&state=/t&log=/l/": {"/nix/store", "/r", "/t", "/l", "/r/nix/store"},
		"local?real=/x":                  {"/nix/store", "", "/nix/var/nix", "/nix/var/log/nix", "/x"},
		"/a%20b":                         {"/nix/store", "/a%20b", "/a%20b/nix/var/nix", "/a%20b/nix/var/log/nix", "/a%20b/nix/store"},
		"local:///a%20b":                 {"/nix/store", "/a b", "/a b/nix/var/nix", "/a b/nix/var/log/nix", "/a b/nix/store"},
	} {
		s, warnings := storeFor(t, uri, machine{})
		got := dirs{s.StoreDir, s.Root, s.StateDir, s.LogDir, s.RealDir}
		if s.Kind != StoreLocal || got != want || len(warnings) != 0 {
			t.Errorf("%q: kind %d, %+v, want %+v, warnings %q", uri, s.Kind, got, want, warnings)
		}
	}
}

func TestDummyStore(t *testing.T) {
	for uri, readOnly := range map[string]bool{"dummy://": true, "dummy://?read-only=false": false, "dummy://?read-only=1": true} {
		if s, warnings := storeFor(t, uri, machine{}); s.Kind != StoreRemote || s.ReadOnly != readOnly || len(warnings) != 0 {
			t.Errorf("%s: kind %d, read-only %v, warnings %q", uri, s.Kind, s.ReadOnly, warnings)
		}
	}
	if _, warnings := storeFor(t, "dummy://?xx=1&priority=3", machine{}); !cmp.Equal(warnings, []string{"unknown setting 'xx'"}) {
		t.Errorf("warnings %q", warnings)
	}
}

func TestStoreParameters(t *testing.T) {
	m := machine{args: []string{"--no-require-sigs", "--extra-experimental-features", "read-only-local-store local-overlay-store"}}
	got, warnings := storeFor(t, "local?read-only=true&require-sigs=1&build-dir=/b&path-info-cache-size=5&trusted=yes"+
		"&priority=-3&want-mass-query=true&system-features=b%20a&use-roots-daemon=1&ignore-gc-delete-failure=1&xx=1&aa=2", m)
	got.Reference = settings.StoreReference{}
	want := StoreConfig{StoreDir: "/nix/store", StateDir: "/nix/var/nix", LogDir: "/nix/var/log/nix", RealDir: "/nix/store",
		BuildDir: "/b", ReadOnly: true, RequireSigs: true, IgnoreGCDeleteFailure: true, UseRootsDaemon: true,
		PathInfoCacheSize: 5, Trusted: true, Priority: -3, WantMassQuery: true, SystemFeatures: []string{"a", "b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"unknown setting 'aa'", "unknown setting 'xx'"}, warnings); diff != "" {
		t.Error(diff)
	}
	if s, _ := storeFor(t, "local", m); s.RequireSigs {
		t.Error("the setting require-sigs does not reach the store")
	}
	s, warnings := storeFor(t, "local?use-roots-daemon=1", machine{})
	if s.UseRootsDaemon || !cmp.Equal(warnings, []string{"Ignoring setting 'use-roots-daemon' because experimental feature 'local-overlay-store' is not enabled"}) {
		t.Errorf("%v %q", s.UseRootsDaemon, warnings)
	}
}

var badStores = map[string]string{
	"foo://x":                         "don't know how to open Nix store with scheme 'foo'",
	"local?require-sigs=3":            "Boolean setting 'require-sigs' has invalid value '3'",
	"local?root=r":                    `not an absolute path: "r"`,
	"local://r":                       `not an absolute path: "r"`,
	"local?store=":                    "setting 'store' is a path and paths cannot be empty",
	"local?state=":                    "setting 'state' is a path and paths cannot be empty",
	"local-overlay://?upper-layer=":   "setting 'upper-layer' is a path and paths cannot be empty",
	"local-overlay://?upper-layer=r":  `not an absolute path: "r"`,
	"local-overlay://?remount-hook=r": `not an absolute path: "r"`,
	"local-overlay://?check-mount=x":  "Boolean setting 'check-mount' has invalid value 'x'",
	"local?priority=x":                "setting 'priority' has invalid value 'x'",
	"local?read-only=true":            "experimental Nix feature 'read-only-local-store' is disabled; add '--extra-experimental-features read-only-local-store' to enable it",
}

func TestStoreErrors(t *testing.T) {
	for uri, want := range badStores {
		if _, err := Load(machine{args: []string{"--store", uri}}.input()); err == nil || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", uri, err, want)
		}
	}
}

func TestOverlayStore(t *testing.T) {
	for uri, want := range map[string]OverlayConfig{
		"local-overlay://?root=/r": {CheckMount: true},
		"local-overlay:///r?lower-store=local%3Froot%3D/l%26read-only%3Dtrue&upper-layer=/u/&check-mount=false&remount-hook=/h": {
			LowerStore: "local?root=/l&read-only=true", UpperLayer: "/u", RemountHook: "/h",
		},
	} {
		s, warnings := storeFor(t, uri, machine{})
		if s.Kind != StoreLocal || s.RealDir != "/r/nix/store" || s.StateDir != "/r/nix/var/nix" || len(warnings) != 0 {
			t.Errorf("%s: %+v, warnings %q", uri, s, warnings)
		}
		if diff := cmp.Diff(&want, s.Overlay); diff != "" {
			t.Errorf("%s: %s", uri, diff)
		}
	}
	if s, warnings := storeFor(t, "local?upper-layer=/u", machine{}); s.Overlay != nil || len(warnings) != 1 {
		t.Errorf("a plain store has an upper layer: %+v, warnings %q", s.Overlay, warnings)
	}
}

func TestOtherStores(t *testing.T) {
	for uri, socket := range map[string]string{
		"daemon": "/nix/var/nix/daemon-socket/socket", "unix://": "/nix/var/nix/daemon-socket/socket",
		"unix:///a/b": "/a/b", "daemon?max-connections=3": "/nix/var/nix/daemon-socket/socket",
		"ssh-ng://u@h": "", "ssh://h?compress=true": "", "https://h": "", "http://h": "", "file:///x": "", "s3://b": "", "dummy://": "", "mounted-ssh-ng://h": "",
	} {
		s, _ := storeFor(t, uri, machine{args: []string{"--stdio"}})
		if s.Kind != StoreRemote || s.SocketPath != socket {
			t.Errorf("%s: kind %d, socket %q", uri, s.Kind, s.SocketPath)
		}
	}
	_, warnings := storeFor(t, "daemon", machine{})
	want := []string{`daemon socket path "/nix/var/nix/daemon-socket/socket" is the same as the store's socket path; this will fail`}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Error(diff)
	}
}

// TestAutoStore has one row per machine.
func TestAutoStore(t *testing.T) {
	const state, socket = "/nix/var/nix", "/nix/var/nix/daemon-socket/socket"
	home := "/home/u/.local/share/nix/root"
	existing := func(paths ...string) fakeFS {
		f := fakeFS{files: map[string]string{}}
		for _, p := range paths {
			f.files[p] = "unreadable"
		}
		return f
	}
	for name, c := range map[string]struct {
		m        machine
		uri      string
		kind     StoreKind
		root     string
		warnings []string
	}{
		"usable state":      {machine{user: true, fs: fakeFS{writable: []string{state}, files: map[string]string{socket: ""}}}, "auto", StoreLocal, "", nil},
		"daemon there":      {machine{user: true, fs: existing(state, socket), args: []string{"--stdio"}}, "auto", StoreRemote, "", nil},
		"nothing, as root":  {machine{}, "auto", StoreLocal, "", nil},
		"nothing, as user":  {machine{user: true}, "auto", StoreLocal, home, []string{`/nix/var/nix does not exist, so Nix will use "` + home + `" as a chroot store`}},
		"second time":       {machine{user: true, fs: existing(home)}, "auto", StoreLocal, home, nil},
		"other data home":   {machine{user: true, fs: existing("/d/root"), env: map[string]string{"NIX_DATA_HOME": "/d"}}, "auto", StoreLocal, "/d/root", nil},
		"parameters":        {machine{user: true}, "auto?state=/s", StoreLocal, "", nil},
		"store dir given":   {machine{user: true, env: map[string]string{"NIX_STORE_DIR": "/x"}}, "auto", StoreLocal, "", nil},
		"state dir given":   {machine{user: true, env: map[string]string{"NIX_STATE_DIR": "/x"}}, "auto", StoreLocal, "", nil},
		"state not allowed": {machine{user: true, fs: existing(state)}, "auto", StoreLocal, "", nil},
	} {
		s, warnings := storeFor(t, c.uri, c.m)
		if s.Kind != c.kind || s.Root != c.root || !cmp.Equal(warnings, c.warnings) {
			t.Errorf("%s: kind %d, root %q, warnings %q", name, s.Kind, s.Root, warnings)
		}
	}
}
