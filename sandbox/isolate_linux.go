package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox/internal/child"
	"nixdaemon/sandbox/internal/plan"
)

// isolator starts isolated builders. The zero value is ready.
type isolator struct {
	namespaces userNamespaces
	networks   networks
	host       sync.Once
	facts      hostFacts
	support    sync.Once
	supported  Support
}

// hostFacts are what is asked once.
type hostFacts struct {
	daemon     int // pidfd, -1 for none
	landlock   bool
	coreLimit  uint64
	filesLimit unix.Rlimit
	ignored    uint64
}

func (i *isolator) askHost() *hostFacts {
	i.host.Do(func() {
		f := &i.facts
		var err error
		if f.daemon, err = unix.PidfdOpen(os.Getpid(), 0); err != nil {
			f.daemon = -1
		}
		version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
		f.landlock = errno == 0 && version >= landlockScopes
		f.coreLimit = hardCoreLimit()
		f.filesLimit = inheritedFilesLimit()
		f.ignored = ignoredSignals()
	})
	return &i.facts
}

// landlockScopes is the version of landlock that knows scopes (Linux 6.12).
const landlockScopes = 6

// fork starts an isolated builder. files are its standard descriptors.
func (i *isolator) fork(f *forker, spec *Spec, files []uintptr) (*started, error) {
	if hasZero(spec.Args) || hasZero(spec.Env) || hasZero([]string{spec.Path, spec.Dir, spec.Isolation.Root}) {
		return nil, fmt.Errorf("start builder '%s': %w", spec.Path, unix.EINVAL)
	}
	in, err := i.input(f, spec, files)
	if err != nil {
		return nil, err
	}
	if in.Cgroup, err = openProcs(spec.Cgroup); err != nil {
		return nil, err
	}
	if in.Cgroup >= 0 {
		defer unix.Close(in.Cgroup)
	}
	release, err := i.shared(f, in, spec.Isolation.IDs)
	if err != nil {
		return nil, err
	}
	t, err := f.thread(spec.attributes())
	if err != nil {
		release()
		return nil, fmt.Errorf("prepare builder '%s': %w", spec.Path, err)
	}
	pid, err := t.run(plan.Steps(*in), in.Privileged)
	if err != nil {
		release()
		return nil, isolatedError(spec, err)
	}
	return &started{pid: pid, release: release, attach: i.attacher(f, in)}, nil
}

// openProcs opens the file through which a process joins a cgroup; -1 stands for none.
func openProcs(cgroup *os.File) (int, error) {
	if cgroup == nil {
		return -1, nil
	}
	procs, err := unix.Openat(int(cgroup.Fd()), "cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open cgroup '%s': %w", cgroup.Name(), err)
	}
	return procs, nil
}

// shared finds the builder what others may have after it: a network namespace. Whoever owns its namespaces has nothing
// that others get, not even its user namespace, since it could set limits there that are for those, too.
func (i *isolator) shared(f *forker, in *plan.Input, ids *IDMap) (release func(), err error) {
	if in.Owner {
		ns, err := makeUserNamespace(f, idMap{in.Outside, in.Inside, ids.Count})
		if err != nil {
			return nil, fmt.Errorf("make user namespace: %w", err)
		}
		in.UserNamespace = ns
		return func() { unix.Close(ns) }, nil
	}
	if in.ShareNetwork {
		return func() {}, nil
	}
	owner := -1
	if !in.Privileged {
		owner = in.UserNamespace
	}
	w, err := i.networks.get(f, owner)
	if err != nil {
		return nil, err
	}
	in.Network = w.ns
	return w.release, nil
}

// run carries out steps in a child, and returns when it has executed its program or ended: both without an error.
func (t *thread) run(steps []plan.Step, privileged bool) (int, error) {
	m := child.NewImage(steps)
	defer m.Close()
	var flags uintptr
	if privileged {
		flags = unix.CLONE_NEWPID
	}
	pid, err := t.do(func() (int, error) { return m.Start(flags) })
	if err != nil {
		return 0, fmt.Errorf("clone: %w", err)
	}
	pid, failure := m.Finish(pid)
	if failure != nil {
		return 0, &stepError{failure.Step, failure.Errno}
	}
	return pid, nil
}

// stepError is the failure of a step.
type stepError struct {
	step  plan.Step
	errno unix.Errno
}

func (e *stepError) Error() string {
	if e.step.Target == "" {
		return fmt.Sprintf("%s: %v", e.step.Verb, e.errno)
	}
	return fmt.Sprintf("%s '%s': %v", e.step.Verb, e.step.Target, e.errno)
}

func (e *stepError) Unwrap() error { return e.errno }

// isolatedError tells failures of the sandbox from those of the builder's own program.
func isolatedError(spec *Spec, err error) error {
	var step *stepError
	if err == nil || errors.As(err, &step) && (step.step.Call == "execve" || step.step.Call == "chdir") {
		return err
	}
	if step != nil && step.step.Call == "setgroups" {
		err = fmt.Errorf("%w: %w", ErrGroups, err)
	}
	return fmt.Errorf("set up sandbox of '%s': %w", spec.Path, err)
}

func (i *isolator) input(f *forker, spec *Spec, files []uintptr) (*plan.Input, error) {
	iso := spec.Isolation
	entries, err := resolveEntries(iso.Entries)
	if err != nil {
		return nil, err
	}
	facts := i.askHost()
	outside := outsideIDs(spec.User)
	in := &plan.Input{
		Root: iso.Root, Entries: entries, ShareNetwork: iso.ShareNetwork,
		UserNamespace: -1, Privileged: os.Geteuid() == 0, Outside: outside, Inside: outside, RequireGroups: iso.DropGroups,
		Null: int(files[0]), Terminal: int(files[1]), Daemon: facts.daemon, Network: -1, Cgroup: -1,
		Landlock:  facts.landlock,
		CoreLimit: facts.coreLimit, FilesLimit: facts.filesLimit, Ignored: facts.ignored,
		Dir: spec.Dir, Path: spec.Path, Args: spec.Args, Env: spec.Env,
	}
	return in, i.mapIDs(f, in, iso.IDs)
}

// outsideIDs are the builder's in the daemon's user namespace; nil is the daemon's own user.
func outsideIDs(user *User) plan.IDs {
	if user != nil {
		return plan.IDs{UID: user.UID, GID: user.GID}
	}
	return plan.IDs{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

func (i *isolator) mapIDs(f *forker, in *plan.Input, ids *IDMap) error {
	if ids == nil {
		if !in.Privileged || in.Outside.UID == 0 {
			return errors.New("isolate builder: it needs a user namespace or a user of its own")
		}
		return nil
	}
	in.Inside = plan.IDs{UID: ids.UID, GID: ids.GID}
	if in.Owner = ids.Count > 1; in.Owner {
		return nil
	}
	var err error
	in.UserNamespace, err = i.namespaces.get(f, idMap{in.Outside, in.Inside, ids.Count})
	return err
}

func (i *isolator) close() {
	i.networks.close()
	i.namespaces.close()
	if i.facts.daemon > 0 {
		unix.Close(i.facts.daemon)
	}
}

// resolveEntries finds out what is to be bound: directories, files, or links, which are made anew.
func resolveEntries(entries []Entry) ([]plan.Entry, error) {
	resolved := make([]plan.Entry, 0, len(entries))
	for i := range entries {
		e := &entries[i]
		if err := e.validate(); err != nil {
			return nil, err
		}
		r := plan.Entry{Target: e.Target, Source: e.Source, Text: e.Text, Mode: uint32(e.Mode.Perm()), Own: e.Own, ReadOnly: e.ReadOnly, Fresh: e.Fresh}
		if e.Mode&os.ModeSticky != 0 {
			r.Mode |= unix.S_ISVTX
		}
		if e.Kind != EntryBind {
			r.Kind = planKinds[e.Kind]
			resolved = append(resolved, r)
			continue
		}
		there, err := resolveBind(e, &r)
		if err != nil {
			return nil, err
		}
		if there {
			resolved = append(resolved, r)
		}
	}
	return resolved, nil
}

var planKinds = [...]plan.Kind{EntryDir: plan.Dir, EntryFile: plan.File, EntryLink: plan.Link, EntryProc: plan.Proc,
	EntrySys: plan.Sys, EntryTmpfs: plan.Tmpfs, EntryPts: plan.Pts}

// resolveBind tells whether there is something to bind.
func resolveBind(e *Entry, r *plan.Entry) (bool, error) {
	var st unix.Stat_t
	err := unix.Lstat(e.Source, &st)
	switch {
	case err == unix.ENOENT && e.Optional:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("getting attributes of path '%s': %w", e.Source, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		r.Kind = plan.BindDir
		if e.Assembly != nil {
			r.Assembly = e.Assembly.mounts
		}
	case unix.S_IFLNK:
		r.Kind = plan.Link
		if r.Text, err = os.Readlink(e.Source); err != nil {
			return false, err
		}
	default:
		r.Kind = plan.BindFile
	}
	return true, nil
}

func (e *Entry) validate() error {
	if e.Kind < EntryDir || e.Kind > EntryPts {
		return fmt.Errorf("put '%s' into sandbox: unknown kind %d", e.Target, e.Kind)
	}
	if !filepath.IsAbs(e.Target) || filepath.Clean(e.Target) != e.Target || e.Target == "/" {
		return fmt.Errorf("put '%s' into sandbox: not an absolute, clean path", e.Target)
	}
	if e.Kind == EntryBind && !filepath.IsAbs(e.Source) {
		return fmt.Errorf("put '%s' into sandbox at '%s': path is not absolute", e.Source, e.Target)
	}
	for _, s := range []string{e.Target, e.Source} {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("put '%s' into sandbox: zero byte in its name", strings.ReplaceAll(s, "\x00", "␀"))
		}
	}
	return nil
}
