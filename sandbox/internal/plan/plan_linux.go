package plan

import "golang.org/x/sys/unix"

// Input is all that decides the steps.
type Input struct {
	// Root is the directory of the host over which the builder's root is mounted.
	Root string
	// Entries make up the root, in this order.
	Entries []Entry
	// ShareNetwork leaves the daemon's network namespace alone. Network is the descriptor of a namespace, with its
	// loopback device up, to be entered; negative makes a new one.
	ShareNetwork bool
	Network      int

	// UserNamespace is the descriptor of the builder's user namespace, negative for none.
	UserNamespace int
	// Privileged says that the daemon is root and makes the builder's world with that. Otherwise the child enters the
	// user namespace, which is then there, before all else.
	Privileged bool
	// Owner makes the builder own its namespaces: it is root in its user namespace.
	Owner bool
	// Outside and Inside are the builder's ids in the daemon's user namespace and in its own.
	Outside, Inside IDs
	// RequireGroups makes it an error that supplementary groups cannot be dropped.
	RequireGroups bool

	// Null and Terminal are the descriptors of /dev/null and of the builder's output.
	Null, Terminal int
	// Daemon is a pidfd of the daemon, negative for none.
	Daemon int
	// Cgroup is the descriptor of the cgroup's file cgroup.procs, negative for none.
	Cgroup int

	// Landlock cuts off the abstract sockets of others.
	Landlock bool
	// CoreLimit and FilesLimit are the hard limit on core files and both limits on descriptors.
	CoreLimit  uint64
	FilesLimit unix.Rlimit

	// Ignored are the signals that the daemon ignores, signal 1 in the lowest bit.
	Ignored uint64

	Dir, Path string
	Args, Env []string
}

// IDs are a user and a group.
type IDs struct{ UID, GID uint32 }

// Kind says what an [Entry] is.
type Kind uint8

// The kinds of entries; sandbox.EntryKind tells what they are. What is bound is a directory, or something else, that
// exists and is no symbolic link.
const (
	Dir Kind = iota + 1
	File
	Link
	BindDir
	BindFile
	Proc
	Sys
	Tmpfs
	Pts
)

// Entry is one thing in the root.
type Entry struct {
	Kind                 Kind
	Target, Source, Text string
	Mode                 uint32
	Own, ReadOnly, Fresh bool
	// Assembly is for a BindDir: the descriptor of a mount namespace whose root, with all mounts, takes Source's place;
	// 0 for none.
	Assembly int
}

// Steps are what the child does.
func Steps(in Input) []Step {
	p := &planner{in: &in, steps: make([]Step, 0, stepsAtMost+3*len(in.Entries)), dirs: map[string]bool{"/": true}, foreign: make(map[string]bool), grouped: make(map[string]bool), mountedOn: make(map[string]bool), hidden: make(map[string]int)}
	p.join()
	p.namespaces()
	p.root()
	if in.Owner {
		p.own()
	}
	p.pivot()
	p.identity()
	p.restrict()
	p.execute()
	return p.steps
}

// Trial are the steps that tell whether the kernel lets a daemon make namespaces and mount a procfs: they end without
// executing anything. userNamespace is negative for a privileged daemon.
func Trial(userNamespace int) []Step {
	in := Input{Root: "/", UserNamespace: userNamespace, Privileged: userNamespace < 0, Network: -1, Cgroup: -1, Daemon: -1}
	p := &planner{in: &in}
	p.namespaces()
	p.add("mount", "/proc", "mount", unix.SYS_MOUNT, str("proc"), str("/proc"), str("proc"), num(0), null)
	p.add("end", "", "exit_group", unix.SYS_EXIT_GROUP, num(0))
	return p.steps
}

// Sleep are the steps of a child that only holds a namespace open until it is killed.
func Sleep() []Step {
	p := &planner{}
	p.add("die with the daemon", "", "prctl", unix.SYS_PRCTL, num(unix.PR_SET_PDEATHSIG), num(int(unix.SIGKILL)), num(0), num(0), num(0))
	p.add("sleep", "", "ppoll", unix.SYS_PPOLL, null, num(0), null, null, num(8))
	return p.steps
}

// Network are the steps of a child that makes a network namespace, in the user namespace given or the daemon's, and
// keeps a socket of it.
func Network(userNamespace int) []Step {
	p := &planner{in: &Input{UserNamespace: userNamespace}}
	if userNamespace >= 0 {
		p.enterUser()
	}
	p.add("make network namespace", "", "unshare", unix.SYS_UNSHARE, num(unix.CLONE_NEWNET))
	p.loopback()
	p.add("open socket", "", "socket", unix.SYS_SOCKET, num(unix.AF_NETLINK), num(unix.SOCK_RAW|unix.SOCK_CLOEXEC), num(unix.NETLINK_ROUTE)).Result = ResultKeep
	p.add("end", "", "exit_group", unix.SYS_EXIT_GROUP, num(0))
	return p.steps
}

// stepsAtMost is about how many steps there are without entries, for memory to be taken at once.
const stepsAtMost = 160

type planner struct {
	in    *Input
	steps []Step
	// args is where the next steps' arguments go.
	args []Arg
	// dirs are the directories that exist in the root.
	dirs map[string]bool
	// foreign are what is mounted from the host and may hold anything.
	foreign map[string]bool
	// hidden are the steps that open what the new root will hide, by target.
	hidden map[string]int
	// grouped are fresh directories whose mounts are made read-only together.
	grouped map[string]bool
	// mountedOn are directories in which something is mounted.
	mountedOn map[string]bool
}

func (p *planner) add(verb, target, call string, number uintptr, args ...Arg) *Step {
	if cap(p.args)-len(p.args) < len(args) {
		p.args = make([]Arg, 0, 1024)
	}
	from := len(p.args)
	p.args = append(p.args, args...)
	p.steps = append(p.steps, Step{Verb: verb, Target: target, Call: call, Number: number, Args: p.args[from:len(p.args):len(p.args)]})
	return &p.steps[len(p.steps)-1]
}

// then passes the result of the step on.
func (s *Step) then(argument int) { s.Result, s.Into = ResultNext, argument }

// unless names the error that does not matter.
func (s *Step) unless(errno unix.Errno) *Step {
	s.Tolerate = errno
	return s
}

// guard leaves the next step out after that error.
func (s *Step) guard() { s.Guard = true }
