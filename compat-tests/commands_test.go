package compat

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

type command = func(ts *testscript.TestScript, neg bool, args []string)

// commands are those that scripts have besides testscript's own; README.md
// explains them to who writes a script.
func (sc *scenario) commands(t *testing.T) map[string]command {
	cmds := map[string]command{
		"as":      sc.cmdAs,
		"behind":  sc.cmdBehind(t),
		"capture": sc.cmdCapture,
		"compare": sc.cmdCompare,
		"damaged": func(*testscript.TestScript, bool, []string) { sc.damaged = true },
		"daemon":  sc.cmdDaemon(t),
		"delete":  sc.cmdDelete,
		"direct":  sc.cmdDirect,
		"gone":    cmdGone,
		"machine": sc.cmdMachine(t),
		"sh":      func(ts *testscript.TestScript, neg bool, args []string) { sc.cmdShell(ts, neg, args) },
		"second":  sc.cmdSecond(t),
		"serve":   sc.cmdServe,
		"served":  sc.cmdServed,
		"status":  sc.cmdStatus,
		"await":   cmdAwait,
		"try":     sc.cmdTry,
	}
	for _, name := range []string{"nix", "nix-build", "nix-channel", "nix-collect-garbage", "nix-copy-closure",
		"nix-env", "nix-hash", "nix-instantiate", "nix-store", "nix-prefetch-url"} {
		cmds[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			sc.record(ts, neg, strings.Join(append([]string{name}, args...), " "), append([]string{name}, args...))
		}
	}
	return cmds
}

// record runs argv and adds what it did to the transcript.
func (sc *scenario) record(ts *testscript.TestScript, neg bool, shown string, argv []string) {
	// What stands in a process's environment counts as in use: captured
	// store paths must not stand there.
	err := ts.Exec("env", slices.Concat(sc.captured, argv)...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%s: %v", shown, err)
	}
	sc.lastExit = 0
	if exit != nil {
		sc.lastExit = exit.ExitCode()
	}
	if sc.trying {
		neg = err != nil
	}
	sc.transcript.add(sc.how, shown, sc.lastExit, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	if failed := err != nil; failed != neg {
		ts.Fatalf("%s: exit status %d, unexpectedly", shown, sc.lastExit)
	}
}

// cmdTry is "try COMMAND...": it may succeed or fail, as the reference does.
func (sc *scenario) cmdTry(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 || neg {
		ts.Fatalf("usage: try COMMAND...")
	}
	sc.trying = true
	defer func() { sc.trying = false }()
	sc.record(ts, false, "try "+strings.Join(args, " "), args)
}

// cmdAs is "as USER COMMAND...".
func (sc *scenario) cmdAs(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: as USER COMMAND...")
	}
	uid, gid, err := account(args[0])
	ts.Check(err)
	home := sc.scratch.path("home-" + args[0])
	ts.Check(os.MkdirAll(home, 0o700))
	ts.Check(os.Chown(home, uid, gid))
	env := []string{"env", "HOME=" + home, "USER=" + args[0]}
	argv, err := asUser(args[0], append(env, args[1:]...))
	ts.Check(err)
	sc.record(ts, neg, "as "+strings.Join(args, " "), argv)
}

// cmdDirect is "direct COMMAND...": the client opens the store by itself.
func (sc *scenario) cmdDirect(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: direct COMMAND...")
	}
	sc.record(ts, neg, "direct "+strings.Join(args, " "), append([]string{"env", "NIX_REMOTE="}, args...))
}

// cmdDelete is "delete PATH...": they are deleted as soon as nobody uses them
// any more, which with a daemon that forks is some time after its client has
// gone. Nothing of this is compared.
func (sc *scenario) cmdDelete(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: delete PATH...")
	}
	argv := slices.Concat(sc.captured, []string{"nix-store", "--delete"}, args)
	ts.Check(poll(waitLimit, func() error { return ts.Exec("env", argv...) }))
}

// cmdShell is "sh SCRIPT".
func (sc *scenario) cmdShell(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: sh SCRIPT")
	}
	sc.record(ts, neg, "sh "+args[0], []string{"/bin/sh", "-ec", args[0]})
}

// cmdStatus is "status N": the last recorded command ended with this status.
func (sc *scenario) cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: status N")
	}
	if strconv.Itoa(sc.lastExit) != args[0] {
		ts.Fatalf("exit status was %d, want %s", sc.lastExit, args[0])
	}
}

// cmdCapture is "capture NAME...": the lines of stdout become variables.
func (sc *scenario) cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	lines := strings.Fields(ts.ReadFile("stdout"))
	if neg || len(args) == 0 || len(lines) != len(args) {
		ts.Fatalf("capture %d words of output as %q: %q", len(lines), args, lines)
	}
	for i, name := range args {
		ts.Setenv(name, lines[i])
		sc.captured = append(sc.captured, "--unset="+name)
	}
}

// cmdCompare is "compare all|stdout|sorted|exit", for the commands that follow.
func (sc *scenario) cmdCompare(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: compare all|stdout|sorted|exit")
	}
	switch how := comparison(args[0]); how {
	case compareAll, compareStdout, compareSorted, compareExit:
		sc.how = how
	default:
		ts.Fatalf("no way to compare is called %q", args[0])
	}
}

// cmdAwait is "await FILE...": waits until they exist.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	for _, file := range args {
		err := poll(waitLimit, func() error {
			_, err := os.Stat(ts.MkAbs(file))
			if neg && err == nil {
				return fmt.Errorf("%s is still there", file)
			}
			if neg {
				return ignoreMissing(err)
			}
			return err
		})
		ts.Check(err)
	}
}

// cmdGone is "gone FILE": waits until the process whose id is in it has ended.
func cmdGone(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: gone FILE")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(args[0])))
	ts.Check(err)
	ts.Check(poll(waitLimit, func() error {
		if runs(pid) {
			return fmt.Errorf("process %d goes on", pid)
		}
		return nil
	}))
}

// cmdSecond is "second": starts one more daemon, for a store whose paths look
// the same and that lies in $ROOT/second, at the socket $ROOT/second.socket.
func (sc *scenario) cmdSecond(t *testing.T) command {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 0 {
			ts.Fatalf("usage: second")
		}
		socket := sc.scratch.path("second.socket")
		sc.second = startDaemon(t, sc.scratch, sc.program, daemonOptions{
			socket: socket,
			env: []string{
				"NIX_REMOTE=local?root=" + sc.scratch.path("second"),
				"NIX_DAEMON_SOCKET_PATH=" + socket,
			},
		})
	}
}

// cmdBehind is "behind": from here on the daemon serves the store of another
// daemon, which is the reference's and listens at $ROOT/behind.socket.
func (sc *scenario) cmdBehind(t *testing.T) command {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 0 {
			ts.Fatalf("usage: behind")
		}
		ts.Check(sc.daemon.stop())
		socket := sc.scratch.path("behind.socket")
		sc.second = startDaemon(t, sc.scratch, shared.clients[referenceVersion].program("nix-daemon"), daemonOptions{
			socket: socket,
			env:    []string{"NIX_DAEMON_SOCKET_PATH=" + socket},
		})
		sc.daemon = startDaemon(t, sc.scratch, sc.program, daemonOptions{env: []string{"NIX_REMOTE=unix://" + socket}})
	}
}

// cmdDaemon is "daemon start|stop|restart [users] [ARG...]".
func (sc *scenario) cmdDaemon(t *testing.T) command {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if len(args) == 0 || neg {
			ts.Fatalf("usage: daemon start|stop|restart [users] [NAME=VALUE...] [ARG...]")
		}
		if args[0] != "start" {
			ts.Check(sc.daemon.stop())
			sc.daemon = nil
		}
		if args[0] == "stop" {
			return
		}
		opts := daemonOptions{args: args[1:]}
		if len(opts.args) > 0 && opts.args[0] == "users" {
			opts.users, opts.args = true, opts.args[1:]
		}
		for len(opts.args) > 0 && strings.Contains(opts.args[0], "=") {
			opts.env, opts.args = append(opts.env, opts.args[0]), opts.args[1:]
		}
		sc.daemon = startDaemon(t, sc.scratch, sc.program, opts)
	}
}
