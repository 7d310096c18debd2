package settings

import (
	"maps"
	"slices"
	"strings"
)

// Environment is what the defaults depend on: facts of the host, and the few environment variables that stand for a
// setting. It is data, so that a default can be tested for any host.
type Environment struct {
	System        string   // platform of local builds, such as x86_64-linux
	CPUs          uint     // CPUs that this process may use; 0 counts as 1
	CPULimit      uint     // CPU limit of the cgroup, rounded as upstream does; 0 when there is none
	CPULevels     []string // micro-architecture levels, such as x86_64-v3
	Root          bool     // whether the effective user is root
	KVM           bool     // /dev/kvm is readable and writable
	WSL1          bool     // Windows Subsystem for Linux, first version
	AppleVirt     bool     // macOS: hardware virtualisation is available
	Rosetta       bool     // macOS on ARM: x86_64 programs run
	SandboxShell  string   // static shell that is shown as /bin/sh in the sandbox; empty for none
	ConfDir       string   // directory of nix.conf; empty is /etc/nix
	SystemSSLCert string   // bundle of CA certificates found on the host; empty for none

	Remote              string   // NIX_REMOTE; used when RemoteSet
	RemoteSet           bool     // whether NIX_REMOTE exists, even empty
	RemoteSystems       []string // machine files of NIX_REMOTE_SYSTEMS; used when RemoteSystemsSet
	RemoteSystemsSet    bool     // whether NIX_REMOTE_SYSTEMS exists
	IgnoreSymlinkStore  bool     // NIX_IGNORE_SYMLINK_STORE is 1
	SSLCertFileOverride string   // NIX_SSL_CERT_FILE, else SSL_CERT_FILE
	BuildHook           []string // program and arguments of the build hook; empty: `nix __build-remote`
}

func (e *Environment) cpus() uint { return max(1, e.CPUs) }

// os is the part of the system string after the last dash.
func (e *Environment) os() string {
	return e.System[strings.LastIndexByte(e.System, '-')+1:]
}

func (e *Environment) confDir() string {
	if e.ConfDir == "" {
		return "/etc/nix"
	}
	return e.ConfDir
}

// macOSSandboxPaths are visible in every build on macOS.
var macOSSandboxPaths = []string{
	"/System/Library/Frameworks", "/System/Library/PrivateFrameworks", "/bin/bash", "/bin/sh",
	"/private/tmp", "/private/var/tmp", "/usr/lib",
}

// Defaults returns the settings of a host before any file, variable or flag is applied. A store reference in
// NIX_REMOTE that cannot be parsed counts as "auto" here; package daemon/config reports it.
func Defaults(env Environment) *Settings {
	s := constantDefaults()
	s.facts = &env
	s.System = env.System
	s.Builders = "@" + env.confDir() + "/machines"
	s.NetrcFile = env.confDir() + "/netrc"
	s.SSLCertFile = env.SystemSSLCert
	if env.SSLCertFileOverride != "" {
		s.SSLCertFile = env.SSLCertFileOverride
	}
	s.AllowSymlinkedStore = env.IgnoreSymlinkStore
	s.UseSQLiteWAL = !env.WSL1
	s.RequireDropSupplementary = env.Root
	if env.Root {
		s.BuildUsersGroup = "nixbld"
	}
	if len(env.BuildHook) > 0 {
		s.BuildHook = slices.Clone(env.BuildHook)
	}
	s.remoteDefaults(&env)
	s.platformDefaults(&env)
	s.ExtraPlatforms = extraPlatforms(&env)
	s.SystemFeatures = systemFeatures(&env)
	return s
}

func (s *Settings) remoteDefaults(env *Environment) {
	if env.RemoteSystemsSet {
		files := make([]string, len(env.RemoteSystems))
		for i, file := range env.RemoteSystems {
			files[i] = "@" + file
		}
		s.Builders = strings.Join(files, "\n")
	}
	if !env.RemoteSet {
		return
	}
	if ref, err := ParseStoreReference(env.Remote); err == nil {
		s.Store = ref.String()
	}
}

func (s *Settings) platformDefaults(env *Environment) {
	switch env.os() {
	case "linux":
		s.StartID, s.IDCount = 0x34000000, 65536*128
		s.Sandbox = SandboxTrue
		if env.SandboxShell != "" {
			s.SandboxPaths = []SandboxPath{{Target: "/bin/sh", Source: env.SandboxShell}}
		}
	case "darwin":
		s.UseCaseHack = true
		for _, p := range macOSSandboxPaths {
			s.SandboxPaths = append(s.SandboxPaths, SandboxPath{Target: p, Source: p})
		}
		s.AllowedImpureHostDeps = []string{"/System/Library", "/bin/sh", "/dev", "/usr/lib"}
	}
}

func extraPlatforms(env *Environment) []string {
	var res []string
	if env.System == "x86_64-linux" && !env.WSL1 {
		res = append(res, "i686-linux")
	}
	if env.os() == "linux" {
		for _, level := range env.CPULevels {
			res = append(res, level+"-linux")
		}
	}
	if env.System == "aarch64-darwin" && env.Rosetta {
		res = append(res, "x86_64-darwin")
	}
	return sortedSet(res)
}

func systemFeatures(env *Environment) []string {
	res := map[string]bool{"nixos-test": true, "benchmark": true, "big-parallel": true}
	if env.os() == "linux" {
		res["uid-range"] = true
		if env.KVM {
			res["kvm"] = true
		}
	}
	if env.os() == "darwin" && env.AppleVirt {
		res["apple-virt"] = true
	}
	return slices.Sorted(maps.Keys(res))
}

// host is the environment of the defaults; that of an empty Settings knows nothing.
func (s *Settings) host() *Environment {
	if s.facts == nil {
		return &Environment{}
	}
	return s.facts
}
