// Command nix-daemon serves a Nix store to clients that speak the worker
// protocol. See README.md for its use.
package main

import (
	"context"
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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(daemon.Main(ctx))
}
