package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"nixdaemon/daemon/config"
	"nixdaemon/protocol/activity"
	"nixdaemon/worker"
	"nixdaemon/worker/remote"
	"nixdaemon/worker/settings"
)

// newRemote prepares building on other machines. self is this program.
func newRemote(b *local, self string) *remote.Builders {
	return remote.New(remote.Options{
		Store: b.store, Dir: b.store.Dir(), StateDir: b.store.StateDir(), SocketPath: b.cfg.SocketPath,
		Self: self, IDs: &b.ids, Log: b.log,
	})
}

// buildHookCommand is the argument with which upstream's daemon starts its build hook, and may start us instead.
const buildHookCommand = "__build-remote"

// BuildHookInvoked tells whether the process is to be the build hook of another daemon.
func BuildHookInvoked(args []string) bool { return len(args) > 1 && args[1] == buildHookCommand }

// BuildHook is the program when it is the build hook of another daemon, and gives the exit status: that daemon asks on
// standard input, and hears the answers on standard error (upstream's build-remote.cc).
func BuildHook(args []string) int {
	// Nobody is there who could be asked for a password.
	os.Unsetenv("DISPLAY")
	os.Unsetenv("SSH_ASKPASS")
	if len(args) != 3 {
		fmt.Fprintln(os.Stderr, "error: called without required arguments")
		return 1
	}
	verbosity, err := strconv.ParseUint(args[2], 10, 8)
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: '%s' is not a verbosity\n", args[2])
		return 1
	}
	const outputFD, outputReadFD = 4, 5
	for _, fd := range []int{outputFD, outputReadFD} {
		unix.CloseOnExec(fd)
	}
	hook := remote.NewHook(os.Stdin, os.Stderr, os.NewFile(outputFD, "build output"),
		func() error { return unix.Close(outputReadFD) }, settings.Verbosity(verbosity))
	switch err := answerHook(context.Background(), hook, settings.Verbosity(verbosity)); {
	case err == nil:
		return 0
	case !errors.Is(err, remote.ErrFailed):
		hook.Fail(err)
	}
	return 1
}

func answerHook(ctx context.Context, hook *remote.Hook, verbosity settings.Verbosity) (err error) {
	told, err := hook.Settings()
	if err != nil {
		return err
	}
	in := config.Process()
	in.Args = []string{in.Args[0]}
	for _, s := range told {
		in.Args = append(in.Args, "--option", s.Name, s.Value)
	}
	cfg, err := config.Load(in)
	if err != nil {
		return err
	}
	cfg.Settings = cfg.Settings.Clone()
	cfg.Settings.Verbosity = verbosity
	if machines, err := remote.Parse(cfg.Settings.Builders, cfg.Settings.System); err != nil || len(machines) == 0 {
		if err == nil {
			hook.DeclineAll()
		}
		return err
	}
	store, err := openBuilt(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.close()) }()
	defer func() { err = errors.Join(err, store.roots.Close()) }()
	self, err := programPath()
	if err != nil {
		return err
	}
	o := store.options
	o.SocketPath, o.Self, o.IDs, o.Log = cfg.SocketPath, self, new(activity.IDs), zerolog.Nop()
	b := remote.New(o)
	defer func() { err = errors.Join(err, b.Close()) }()
	return hook.Answer(ctx, b, cfg.Settings, cfg.Store.SystemFeatures, store.roots)
}

// built is the store of a daemon whose build hook we are.
type built struct {
	options remote.Options   // as far as they are about the store
	roots   worker.TempRoots // of a store that is away they close it
	close   func() error
}

// openBuilt opens that store: one of this machine, or one that is away.
func openBuilt(ctx context.Context, cfg *config.Config) (built, error) {
	if cfg.Store.Kind != config.StoreRemote {
		store, err := openStore(ctx, cfg, storeOptions(cfg, zerolog.Nop()), nil)
		if err != nil {
			return built{}, err
		}
		o := remote.Options{Store: store, Dir: store.Dir(), StateDir: store.StateDir()}
		return built{o, store.NewTempRoots(), store.Close}, nil
	}
	if !isAway(cfg.Store.Reference.Scheme) {
		return built{}, fmt.Errorf("a build hook has nothing to do for store '%s': the daemon there builds", cfg.Store.Reference)
	}
	b, err := newAway(cfg, zerolog.Nop(), new(observers))
	if err != nil {
		return built{}, err
	}
	store, _, _, done, err := b.connect(ctx, nil)
	if err != nil {
		return built{}, errors.Join(err, b.close())
	}
	o := remote.Options{Store: store, StoreURI: store.URI(), Dir: store.Dir(), StateDir: cfg.StateDir}
	return built{o, store.Roots(), func() error { return errors.Join(done(), b.close()) }}, nil
}
