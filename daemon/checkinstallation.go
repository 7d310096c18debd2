package daemon

import (
	"context"
	"fmt"
	"os"
	"slices"

	"nixdaemon/daemon/config"
	"nixdaemon/daemon/installation"
)

const checkFlag = "--check-installation"

// CheckInvoked tells whether the process is to look at its installation.
func CheckInvoked(args []string) bool { return len(args) > 1 && slices.Contains(args[1:], checkFlag) }

// CheckInstallation prints what the machine has of what a daemon with these arguments needs, and gives the exit
// status: 0 if nothing stands in its way, otherwise 1.
func CheckInstallation(args []string) int {
	in := config.Process()
	in.Args = slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return arg == checkFlag })
	getenv := in.Getenv
	in.Getenv = func(name string) (string, bool) {
		value, ok := getenv(name)
		if name == "NIX_REMOTE" && value == "daemon" {
			return "", false // it is for the clients of whoever asks
		}
		return value, ok
	}
	cfg, loadErr := config.Load(in)
	program, err := programPath()
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return 1
	}
	fmt.Print(versionLine(fmt.Sprintf("nix-daemon (Nix) %s\n", NixVersion)))
	well, err := installation.Write(os.Stdout, installation.Judge(installation.Gather(context.Background(), cfg, loadErr, program)))
	if err != nil || !well {
		return 1
	}
	return 0
}
