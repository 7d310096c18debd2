package build

import (
	"errors"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
)

// sandboxPaths are paths of the host that an isolated builder sees, by where it sees them.
type sandboxPaths map[string]hostPath

type hostPath struct {
	source   string
	optional bool
	readOnly bool // in any case; what is in the store always is
	follow   bool // if it is a link, what it leads to is shown
}

func (s sandboxPaths) set(target, source string, optional bool) {
	s[rooted(target)] = hostPath{source: source, optional: optional}
}

// setDefault leaves alone what is there.
func (s sandboxPaths) setDefault(target string, p hostPath) {
	if _, taken := s[target]; !taken {
		s[target] = p
	}
}

// pathsInSandbox collects what settings, the derivation and the administrator's hook show to the builder, apart from its
// inputs; what comes later wins (unix/build/derivation-builder.cc, getPathsInSandbox).
func (a *attempt) pathsInSandbox() (sandboxPaths, error) {
	paths, err := a.settingsPaths()
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(string(a.dir), a.tmp.inside) {
		return nil, errorf("`sandbox-build-dir` must not contain the storeDir")
	}
	paths.set(a.tmp.inside, a.tmp.path, false)
	for _, p := range a.j.options.ImpureHostDeps {
		clean, err := a.allowedImpure(p)
		if err != nil {
			return nil, err
		}
		paths.set(clean, clean, true)
	}
	return paths, a.runPreBuildHook(paths)
}

// settingsPaths are those of the setting sandbox-paths, and what those in the store need (build/derivation-building-goal.cc).
func (a *attempt) settingsPaths() (sandboxPaths, error) {
	paths := make(sandboxPaths, len(a.set.SandboxPaths)+16)
	for _, p := range a.set.SandboxPaths {
		paths.set(p.Target, p.Source, p.Optional)
	}
	for _, p := range a.set.SandboxPaths {
		start, _, err := a.dir.ParseInside(p.Source)
		if err != nil {
			continue
		}
		closure, err := a.store.Closure(a.ctx, sliceOf(start), localstore.ClosureOptions{})
		if _, invalid := errors.AsType[*localstore.NotValidError](err); invalid {
			continue
		}
		if err != nil {
			return nil, &traceError{"while processing sandbox path " + quotedPath(p.Source), err}
		}
		for _, c := range closure {
			paths.set(a.dir.Print(c), a.store.RealPath(c), false)
		}
	}
	return paths, nil
}

func sliceOf[T any](items ...T) []T { return items }

// allowedImpure gives the clean form of a path that the derivation wants to see, if it may. Links in it are not looked
// at, so that nobody learns of files that are not theirs to see.
func (a *attempt) allowedImpure(p string) (string, error) {
	if !path.IsAbs(p) {
		return "", errorf("not an absolute path: '%s'", p)
	}
	clean := path.Clean(p)
	allowed := slices.ContainsFunc(a.set.AllowedImpureHostDeps, func(dir string) bool {
		dir = path.Clean(dir)
		return clean == dir || dir == "/" || isBelow(clean, dir)
	})
	if !allowed {
		return "", errorf("derivation '%s' requested impure path '%s', but it was not in allowed-impure-host-deps", a.dir.Print(a.j.drvPath), p)
	}
	return clean, nil
}

// addHost looks at the machine: what of it is there to be shown (linux-derivation-builder.cc, enterChroot).
func (a *attempt) addHost(plan *rootPlan, paths sandboxPaths) error {
	plan.paths = paths
	if plan.network {
		a.addNetwork(paths)
	}
	if !plan.shows("/dev") {
		for _, node := range a.devices() {
			// Read-only is the file, its mode for one, not what is written to the device. A builder of root's may own it.
			paths.setDefault(node, hostPath{source: node, follow: true, readOnly: true})
		}
	}
	if exists(devShm) {
		plan.shmSize = a.set.SandboxDevShmSize
	}
	plan.pts = exists("/dev/pts/ptmx")
	if err := paths.check(); err != nil {
		return a.withEmptyLog(err)
	}
	a.chroot.met = plan.network || paths.shared(a.tmp.inside, plan)
	return nil
}

// shared tells whether something is shown, apart from the store and the build directory, where builders could meet.
func (s sandboxPaths) shared(buildDir string, plan *rootPlan) bool {
	for target, p := range s {
		if target == buildDir || isBelow(p.source, plan.realStoreDir) {
			continue
		}
		var st unix.Stat_t
		if unix.Lstat(p.source, &st) != nil {
			continue
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG, unix.S_IFLNK, unix.S_IFCHR:
		default:
			return true
		}
	}
	return false
}

// withEmptyLog leaves the log that upstream has begun when it finds such an error.
func (a *attempt) withEmptyLog(err error) error {
	log, logErr := a.openLog()
	if logErr == nil {
		logErr = log.Close()
	}
	a.complain("write build log", logErr)
	return err
}

// addNetwork shows what programs need for the network. Links are resolved: where they lead is not shown.
func (a *attempt) addNetwork(paths sandboxPaths) {
	if a.set.SSLCertFile != "" {
		if file, err := filepath.EvalSymlinks(a.set.SSLCertFile); err == nil {
			paths.setDefault("/etc/ssl/certs/ca-certificates.crt", hostPath{source: file, optional: true, readOnly: true})
		}
	}
	for _, name := range [...]string{"/etc/resolv.conf", "/etc/services", "/etc/hosts"} {
		if file, err := filepath.EvalSymlinks(name); err == nil {
			paths.setDefault(name, hostPath{source: file, readOnly: true})
		}
	}
}

// devices are the device files that builders see.
func (a *attempt) devices() []string {
	nodes := []string{"/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"}
	if slices.Contains(a.set.SystemFeatures, "kvm") {
		if exists("/dev/kvm") {
			return append(nodes, "/dev/kvm")
		}
		// Upstream's warning comes from its child, whose words reach those alone who debug.
		a.j.feed.Message(activity.Debug, "sandbox setup: warning: KVM is enabled in system-features but /dev/kvm is not available. "+
			"QEMU builds may fall back to slow emulation. "+
			"Consider removing 'kvm' from system-features in nix.conf if KVM is not supported on this system.")
	}
	return nodes
}

// check finds what is to be shown and is not there, and makes sources absolute: what is relative is so to the daemon's
// directory, which is the root.
func (s sandboxPaths) check() error {
	for target, p := range s {
		source := p.source
		p.source = rooted(source)
		s[target] = p
		if p.optional {
			continue
		}
		var st unix.Stat_t
		if err := unix.Lstat(p.source, &st); err != nil {
			return unshowable(source, err)
		}
		if !p.follow || st.Mode&unix.S_IFMT != unix.S_IFLNK {
			continue
		}
		if real, err := filepath.EvalSymlinks(p.source); err == nil {
			p.source = real
			s[target] = p
		}
	}
	return nil
}

func unshowable(source string, err error) error {
	text := err.Error()
	if errno, ok := err.(syscall.Errno); ok {
		text = errnoText(errno)
	}
	return &traceError{"while setting up the build environment", errorf("getting attributes of path %s: %s", quotedPath(source), plain(text))}
}
