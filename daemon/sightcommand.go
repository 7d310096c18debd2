package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/daemon/config"
	"nixdaemon/daemon/status"
	"nixdaemon/daemon/status/statussocket"
	"nixdaemon/daemon/status/view"
)

// sightUsage is told to who asks how to look.
const sightUsage = `Usage: nix-daemon status [--json] [--watch]
       nix-daemon log [--follow] DERIVATION
       nix-daemon cancel BUILD...

status   shows what the daemon builds, fetches and collects, what waits for
         what, and who is connected; with --watch again and again, until it
         is interrupted; with --json as JSON, with both a line each second.
log      prints the log of a build: with --follow (-f) from the beginning and
         as it grows while the build runs, otherwise as it was stored.
cancel   ends a build: for everybody if you are root or trusted, otherwise for
         yourself, so that it goes on if others want it.

A build is meant by its number in the status, by its derivation, or by the
beginning or the name of that.
`

// watchEvery is how often the status is shown anew.
const watchEvery = time.Second

// interrupted is the exit status of what was to go on (128 + SIGINT).
const interrupted = 130

// lookout is one call of a command that looks at a running daemon.
type lookout struct {
	dir            string
	stdout, stderr io.Writer
	// size gives the terminal's size; ok is false if there is none.
	size   func() (width, height int, ok bool)
	colour bool
}

// SightInvoked tells whether the process is to look at a running daemon.
func SightInvoked(args []string) bool {
	if len(args) < 2 || filepath.Base(args[0]) == "nix-store" {
		return false
	}
	switch args[1] {
	case "status", "log", "cancel":
		return true
	}
	return false
}

// Sight is the program when it looks at a running daemon, and gives the exit
// status.
func Sight(args []string, signals <-chan os.Signal) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with the process
		<-signals
		cancel()
	}()
	l := lookout{stdout: os.Stdout, stderr: os.Stderr, size: func() (int, int, bool) { return terminalSize(os.Stdout) }}
	_, _, terminal := l.size()
	l.colour = terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	var err error
	if l.dir, err = lookDir(); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return 1
	}
	return l.run(ctx, args[1], args[2:])
}

// lookDir is the directory of the status sockets of the daemon that our
// clients would use.
func lookDir() (string, error) {
	in := config.Process()
	in.Args = in.Args[:1]
	cfg, err := config.Load(in)
	if err != nil {
		return "", err
	}
	if dir := statusDir(cfg); cfg.Store.Kind != config.StoreRemote {
		if _, err := os.Stat(dir); err == nil {
			return dir, nil
		}
	}
	return filepath.Join(cfg.StateDir, statusDirName), nil
}

// run carries a command out.
func (l *lookout) run(ctx context.Context, command string, args []string) int {
	flags := map[string]bool{}
	var words []string
	for _, arg := range args {
		switch {
		case arg == "--help":
			fmt.Fprint(l.stdout, sightUsage)
			return 0
		case command == "status" && (arg == "--json" || arg == "--watch"),
			command == "log" && (arg == "--follow" || arg == "-f"):
			flags[arg] = true
		case len(arg) > 1 && arg[0] == '-':
			return l.misuse(fmt.Sprintf("unrecognised flag '%s'", arg))
		default:
			words = append(words, arg)
		}
	}
	var err error
	switch {
	case command == "status" && len(words) > 0:
		return l.misuse(fmt.Sprintf("unexpected argument '%s'", words[0]))
	case command == "log" && len(words) != 1:
		return l.misuse("one derivation is needed")
	case command == "cancel" && len(words) == 0:
		return l.misuse("a build is needed")
	case command == "status" && flags["--watch"]:
		err = l.watch(ctx, flags["--json"])
	case command == "status":
		err = l.once(ctx, flags["--json"])
	case command == "log":
		err = statussocket.CopyLog(ctx, l.dir, words[0], flags["--follow"] || flags["-f"], l.stdout)
	default:
		err = l.cancel(ctx, words)
	}
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		return interrupted
	}
	fmt.Fprintf(l.stderr, "error: %v\n", err)
	return 1
}

func (l *lookout) misuse(text string) int {
	fmt.Fprintf(l.stderr, "error: %s\nTry 'nix-daemon status --help' for more information.\n", text)
	return 1
}

func (l *lookout) cancel(ctx context.Context, words []string) error {
	var errs []error
	for _, word := range words {
		build, err := statussocket.Cancel(ctx, l.dir, word)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(l.stdout, "cancelled '%s'\n", build)
	}
	return errors.Join(errs...)
}

// once shows the status, all of it.
func (l *lookout) once(ctx context.Context, asJSON bool) error {
	s, err := statussocket.Ask(ctx, l.dir)
	if err != nil {
		return err
	}
	if asJSON {
		out := json.NewEncoder(l.stdout)
		out.SetIndent("", "  ")
		return out.Encode(s)
	}
	width, _, _ := l.size()
	return l.print(view.Render(s, view.Options{Width: width, Colour: l.colour, Zone: time.Local}))
}

func (l *lookout) print(lines []string) error {
	for _, line := range lines {
		if _, err := fmt.Fprintln(l.stdout, line); err != nil {
			return err
		}
	}
	return nil
}

// watch shows the status until ctx ends, which is no error.
func (l *lookout) watch(ctx context.Context, asJSON bool) (err error) {
	screen := view.NewScreen(l.stdout)
	defer func() { err = errors.Join(err, screen.Close()) }()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var before *status.Snapshot
	for {
		s, err := statussocket.Ask(ctx, l.dir)
		if ctx.Err() != nil {
			return nil
		}
		var nobody *statussocket.NobodyError
		if err != nil && (before == nil || !errors.As(err, &nobody)) {
			return err
		}
		if err != nil { // it may be on its way
			s = status.Join(time.Now())
		}
		if err := l.show(screen, asJSON, s, before); err != nil {
			return err
		}
		before = &s
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// show shows one of several.
func (l *lookout) show(screen *view.Screen, asJSON bool, s status.Snapshot, before *status.Snapshot) error {
	if asJSON {
		return json.NewEncoder(l.stdout).Encode(s)
	}
	width, height, terminal := l.size()
	lines := view.Render(s, view.Options{Width: width, Height: height, Colour: l.colour, Before: before, Zone: time.Local})
	if !terminal {
		return l.print(append(lines, ""))
	}
	return screen.Show(lines)
}

// terminalSize is that of a terminal.
func terminalSize(f *os.File) (width, height int, ok bool) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, false
	}
	return int(size.Col), int(size.Row), true
}
