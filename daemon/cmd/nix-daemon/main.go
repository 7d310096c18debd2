// Command nix-daemon serves a Nix store to clients that speak the worker
// protocol. See README.md for its use.
package main

import (
	"os"
	"os/signal"
	"syscall"

	"nixdaemon/daemon"
	"nixdaemon/sandbox/darwinexec"
	"nixdaemon/worker/builtin"
)

func main() {
	if builtin.Invoked(os.Args) {
		os.Exit(builtin.Main(os.Args))
	}
	if darwinexec.Invoked(os.Args) {
		os.Exit(darwinexec.Main(os.Args))
	}
	if daemon.BuildHookInvoked(os.Args) {
		os.Exit(daemon.BuildHook(os.Args))
	}
	if daemon.CheckInvoked(os.Args) {
		os.Exit(daemon.CheckInstallation(os.Args))
	}
	if daemon.ReleaseInvoked(os.Args) {
		os.Exit(daemon.Release())
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if daemon.SightInvoked(os.Args) {
		os.Exit(daemon.Sight(os.Args, signals))
	}
	os.Exit(daemon.Main(signals))
}
