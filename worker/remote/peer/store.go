package peer

import (
	"context"
	"fmt"
	"io"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/remote/ssh"
	"nixdaemon/worker/settings"
)

// Store is another program's store. Its methods are safe for concurrent use,
// and hang up when their context ends, which is the only way to stop what the
// other side does.
type Store interface {
	// Config is what the reference says.
	Config() Config
	// URI names the store in messages: its reference without parameters.
	URI() string
	// Dir is its store directory.
	Dir() storepath.Dir

	// ValidPaths gives those of the paths that are valid, sorted, after trying
	// to substitute the others if asked to.
	// What that takes is told to the log of Options.
	ValidPaths(ctx context.Context, paths []storepath.Path, substitute bool) ([]storepath.Path, error)
	// PathInfos gives the metadata of those of the paths that are valid, in
	// their order.
	PathInfos(ctx context.Context, paths []storepath.Path) ([]*pathinfo.Info, error)
	// Closure gives the paths with all that they refer to, sorted. All must be
	// valid.
	Closure(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error)
	// NAR gives the archive of a valid path as a stream. An error that comes
	// before its first byte is returned here. Close the stream: that returns
	// the connection, or ends it when the archive was not read to its end.
	NAR(ctx context.Context, p storepath.Path) (io.ReadCloser, error)
	// Import adds paths, each after those that it refers to whatever the order
	// in which they are given, by one request where the other side knows that
	// one. nar is called for each in turn and writes its archive; it may be
	// called again for a path, when an idle connection turns out to be dead.
	// What is valid already is sent as well: ask ValidPaths before.
	Import(ctx context.Context, infos []*pathinfo.Info, nar func(ctx context.Context, info *pathinfo.Info, w io.Writer) error, o ImportOptions) error

	// Realisation gives a realisation, nil if it is unknown.
	Realisation(ctx context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error)
	// RegisterRealisation adds one.
	RegisterRealisation(ctx context.Context, r *pathinfo.Realisation) error
	// KeysByPath tells whether ids of realisations are derivation paths there
	// (protocol.FeatureRealisationWithPath), instead of hashes.
	KeysByPath(ctx context.Context) (bool, error)

	// BuildDerivation builds a derivation that the other side need not have.
	// Its inputs must be there, or be substitutable there.
	BuildDerivation(ctx context.Context, drvPath storepath.Path, drv *derivation.BasicDerivation, o BuildOptions) (derivation.BuildResult, error)
	// BuildPathsWithResults makes paths. Derivations must be there. Where the
	// protocol tells no results, the first failure is an error.
	BuildPathsWithResults(ctx context.Context, paths []derivation.DerivedPath, o BuildOptions) ([]derivation.KeyedBuildResult, error)

	// Trust is what the other side says of us; unknown where the protocol has
	// no word for it.
	Trust(ctx context.Context) (protocol.Trust, error)
	// AddSignatures adds signatures to a valid path.
	AddSignatures(ctx context.Context, p storepath.Path, sigs []pathinfo.Signature) error
	// AddBuildLog adds the log of a derivation's build.
	AddBuildLog(ctx context.Context, drv storepath.Path, log io.Reader) error

	// Connect opens a connection if none is open, to find out whether one can
	// be had.
	Connect(ctx context.Context) error
	// Close hangs up. Calls under way go on; the connections close with them.
	Close() error
}

// ImportOptions say how paths are added.
type ImportOptions struct {
	Repair bool
	// DontCheckSigs asks the other side to believe us; only those that trust us
	// do.
	DontCheckSigs bool
	// Log receives what the other side tells; nil is that of Options.
	Log activity.Sink
}

// BuildOptions say how something is built.
type BuildOptions struct {
	Mode derivation.BuildMode
	// Log receives what the other side tells; nil is that of Options. The serve
	// protocol carries no messages: what a build prints arrives at Options.Stderr.
	Log activity.Sink
	// The rest is sent over the serve protocol alone. The worker protocol has
	// settings for the connection instead (Options.Settings).

	// MaxSilentTime and BuildTimeout are in seconds, 0 for no bound.
	MaxSilentTime, BuildTimeout uint64
	// MaxLogSize is in bytes, 0 for no bound.
	MaxLogSize uint64
	KeepFailed bool
}

// Options say how to open a store.
type Options struct {
	Defaults
	// Log receives what the other side tells, when a call has no log of its
	// own; nil drops it.
	Log activity.Sink
	// Stderr receives what ssh and the remote command write to their standard
	// error, by lines; nil lets that go to our own. It is called by several
	// goroutines.
	Stderr func(line string)
	// Verbose has ssh tell what it does: upstream asks for that at the level
	// "chatty" and above.
	Verbose bool
	// Settings are sent over each connection to a Unix socket. Over ssh none
	// are ever sent, as upstream does.
	Settings *protocol.ClientOptions
	// Features are what replies may say; zero allows nothing experimental.
	Features derivation.Features
	// Version is what is offered over the worker protocol; the zero value is
	// protocol.ClientVersion.
	Version protocol.Version
	// Env is the environment of ssh; nil is our own.
	Env []string
	// MaxConnections, if larger than 0, is used instead of the parameter.
	MaxConnections int
	// Keep has ssh:// stores keep the connection to the machine when they rest; see [Rester].
	Keep bool
}

// Rester is a Store whose log, as far as it arrives at Options.Stderr, is known to be complete only when its connections
// have ended: ssh carries standard output and error side by side, and nothing in the serve protocol marks where in the
// one an answer in the other belongs.
type Rester interface {
	// Rest ends the connections that nobody uses, and returns when everything has arrived that was printed there. With
	// Options.Keep the next ones cost no login.
	Rest()
}

// Unsupported says that a store cannot do something at all.
type Unsupported struct{ Operation, URI string }

// Error is upstream's text (libstore/store-api.hh, unsupported).
func (e *Unsupported) Error() string {
	return fmt.Sprintf("operation '%s' is not supported by store '%s'", e.Operation, e.URI)
}

// Open makes a Store of a reference. It connects when it is first asked
// something. Unknown parameters are in its Config, to be warned of.
func Open(ctx context.Context, ref settings.StoreReference, o Options) (Store, error) {
	cfg, err := Parse(ref, o.Defaults)
	if err != nil {
		return nil, err
	}
	if o.MaxConnections > 0 {
		cfg.MaxConnections = o.MaxConnections
	}
	cfg.Keep = o.Keep && cfg.Kind == SSH
	if o.Log == nil {
		o.Log = activity.Discard{}
	}
	if cfg.Kind == Unix {
		return newDaemon(cfg, o, client.Unix(cfg.SocketPath), nil, o.Settings), nil
	}
	master, err := cfg.Master(o.Stderr, o.Verbose, o.Env)
	if err != nil {
		return nil, err
	}
	dial := Dialer(master, cfg.Command())
	if cfg.Kind == SSH {
		return newServed(cfg, o, dial, master), nil
	}
	return newDaemon(cfg, o, dial, master, nil), nil
}

// Master prepares ssh for the store.
func (c *Config) Master(stderr func(string), verbose bool, env []string) (*ssh.Master, error) {
	return ssh.New(ssh.Options{
		Authority: c.Authority, KeyFile: c.KeyFile, HostKey: c.HostKey, Compress: c.Compress,
		Share: c.MaxConnections > 1, Keep: c.Keep, Verbose: verbose, Env: env, Log: stderr,
	})
}

// Dialer makes connections of a command on the other machine.
func Dialer(master *ssh.Master, command []string) func(context.Context) (io.ReadWriteCloser, error) {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		conn, err := master.Start(ctx, command)
		if err != nil {
			return nil, err // not a nil *ssh.Conn as an interface
		}
		return conn, nil
	}
}
