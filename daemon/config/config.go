// Package config finds out how the daemon was asked to run.
//
// Load reads, each overriding the one before: the host's facts and environment variables (Input.Host, DetectHost),
// the system's nix.conf, the user's configuration files, the variable NIX_CONFIG, and the command line. The result is
// a Config: what to do (Mode), the settings that every connection begins with (worker/settings), and the store to
// serve (StoreConfig). Files are lines `name = value` and includes; file.go reads them. Everything that Load needs of
// the machine comes through Input, so a test can make up a machine.
//
// Names, order and message texts are those of upstream's release 2.34.8.
package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"nixdaemon/worker/settings"
)

// Mode is what the daemon was asked to do.
type Mode uint8

// The modes.
const (
	ModeSocket  Mode = iota // listen on a socket, or on those inherited
	ModeStdio               // serve one connection on standard input and output
	ModeVersion             // print VersionText and exit
	ModeHelp                // show the manual and exit
	ModeServe               // speak the serve protocol on standard input and output, called as nix-store
)

// Trust says who decides whether a client is trusted.
type Trust uint8

// The three ways; TrustByPeer means the peer's user on a socket, and trusted on standard input.
const (
	TrustByPeer Trust = iota
	TrustAll
	TrustNone
)

// Config is everything that Load found.
type Config struct {
	Program    string // first word of the command line
	Command    string // what we were called as: nix-daemon or nix-store
	Mode       Mode
	Trust      Trust
	ProcessOps bool   // --process-ops
	Write      bool   // --write, in ModeServe
	SocketPath string // where to listen in ModeSocket
	LogFormat  string // one of raw, raw-with-logs, internal-json, bar, bar-with-logs

	Settings *settings.Settings // base of every connection; Settings.Verbosity is the daemon's own
	Store    StoreConfig

	StateDir      string   // NIX_STATE_DIR, whatever the store's own is
	LogDir        string   // NIX_LOG_DIR, whatever the store's own is
	ConfFile      string   // the system's nix.conf
	UserConfFiles []string // in order of falling precedence

	// Warnings are to be printed after `warning: `, in this order. They are also set when Load fails.
	Warnings []string
}

// FS is what Load needs to know of files.
type FS interface {
	// ReadFile returns the content of a file.
	ReadFile(path string) ([]byte, error)
	// Exists says whether there is something at path, be it a dangling link.
	Exists(path string) bool
	// Accessible says whether the process may read and write what is at path.
	Accessible(path string) bool
}

// Input is what a configuration is made of.
type Input struct {
	Args   []string                         // the command line, the program first
	Getenv func(name string) (string, bool) // as os.LookupEnv
	Home   string                           // home directory
	Host   settings.Environment             // facts of the host; what variables stand for is filled in by Load
	FS     FS
}

// Load reads the configuration. On an error the Config is returned as far as it got, for its warnings. A
// *settings.UsageError is to be followed by UsageHint.
func Load(in Input) (*Config, error) {
	l := loader{in: in, cfg: &Config{Program: "nix-daemon", Command: "nix-daemon", LogFormat: "raw"}, unknown: map[string]string{}}
	if len(in.Args) > 0 {
		l.cfg.Program = in.Args[0]
		l.cfg.Command = calledAs(in.Args[0])
	}
	err := l.load()
	return l.cfg, err
}

// UsageHint is the line that upstream prints after a usage error.
func (c *Config) UsageHint() string {
	return fmt.Sprintf("Try '%s --help' for more information.", c.Program)
}

// VersionText is the answer to --version; with a verbosity above the default it tells more. version is the release
// of upstream whose behaviour is served.
func (c *Config) VersionText(version string) string {
	text := fmt.Sprintf("%s (Nix) %s\n", c.Command, version)
	if c.Settings.Verbosity <= settings.LevelInfo {
		return text
	}
	return text +
		"System type: " + c.Settings.System + "\n" +
		"Additional system types: " + strings.Join(c.Settings.ExtraPlatforms, ", ") + "\n" +
		"Features: gc, signed-caches\n" +
		"System configuration file: " + settings.QuotePath(c.ConfFile) + "\n" +
		"User configuration files: " + strings.Join(c.UserConfFiles, ":") + "\n" +
		"Store directory: " + c.Store.StoreDir + "\n" +
		"State directory: " + settings.QuotePath(c.StateDir) + "\n"
}

// loader is the state of one Load.
type loader struct {
	in       Input
	cfg      *Config
	unknown  map[string]string // settings that do not exist, with what they were given
	includes int
}

var errStop = errors.New("stop reading the command line")

func (l *loader) load() error {
	if err := l.environment(); err != nil {
		return err
	}
	if err := l.files(); err != nil {
		return err
	}
	err := l.commandLine()
	if errors.Is(err, errStop) {
		// --version shows the store directory; what is wrong with the store is not its business.
		warnings := l.cfg.Warnings
		l.cfg.Store, _ = l.resolveStore()
		l.cfg.Warnings = warnings
		return nil
	}
	if err != nil {
		return err
	}
	l.pluginWarning()
	l.cfg.Store, err = l.resolveStore()
	if err == nil && l.cfg.Mode == ModeSocket && l.cfg.Store.SocketPath == l.cfg.SocketPath {
		l.warn(fmt.Sprintf("daemon socket path %s is the same as the store's socket path; this will fail",
			settings.QuotePath(l.cfg.SocketPath)))
	}
	return err
}

func (l *loader) warn(text string) { l.cfg.Warnings = append(l.cfg.Warnings, text) }

// warnUnknown reports what no setting is called, sorted by name.
func (l *loader) warnUnknown() {
	for _, name := range slices.Sorted(maps.Keys(l.unknown)) {
		l.warn((&settings.UnknownSettingError{Name: name}).Error())
	}
}

// pluginWarning tells that plugins, which are code for upstream's program, are not loaded.
func (l *loader) pluginWarning() {
	if len(l.cfg.Settings.PluginFiles) > 0 {
		l.warn("ignoring the setting 'plugin-files', because this daemon does not load plugins")
	}
}

// set is how files and --option set: names that do not exist are kept for a warning at the end.
func (l *loader) set(name, value string) error {
	err := l.cfg.Settings.SetWarn(name, value, l.warn)
	var unknown *settings.UnknownSettingError
	if errors.As(err, &unknown) {
		l.unknown[name] = value
		return nil
	}
	return err
}
