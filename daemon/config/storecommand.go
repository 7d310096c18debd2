package config

import (
	"fmt"
	"path/filepath"
	"strings"

	"nixdaemon/worker/settings"
)

// storeCommand is the name under which the serve protocol is spoken.
const storeCommand = "nix-store"

// calledAs is which of our commands a program's name means: ssh:// stores run nix-store on the other machine.
func calledAs(program string) string {
	name := filepath.Base(program)
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[:i]
	}
	if name == storeCommand {
		return storeCommand
	}
	return "nix-daemon"
}

// storeFlag applies one of nix-store's own flags, of which we know what belongs to --serve, and says whether arg is
// one. Its other operations are for upstream's nix-store.
func (l *loader) storeFlag(arg string) (known bool, err error) {
	switch arg {
	case "--help":
		l.cfg.Mode, err = ModeHelp, errStop
	case "--version":
		l.cfg.Mode, err = ModeVersion, errStop
	case "--serve":
		l.cfg.Mode = ModeServe
	case "--write":
		l.cfg.Write = true
	case "--stdin", "--indirect", "--no-output":
	default:
		if l.cfg.Mode == ModeServe {
			return true, serveArgument(arg)
		}
		return true, fmt.Errorf("this nix-store only serves other machines ('nix-store --serve'); for '%s' use that of Nix itself", arg)
	}
	return true, err
}

// serveArgument refuses what stands behind --serve with upstream's texts (nix-store.cc, opServe).
func serveArgument(arg string) error {
	if strings.HasPrefix(arg, "-") {
		return &settings.UsageError{Msg: fmt.Sprintf("unknown flag '%s'", arg)}
	}
	return &settings.UsageError{Msg: "no arguments expected"}
}
