package config

import (
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"nixdaemon/worker/settings"
)

// StoreKind says how the store is reached.
type StoreKind uint8

// The kinds of store.
const (
	StoreLocal  StoreKind = iota // directories of this host
	StoreRemote                  // anything else; Reference.Scheme tells
)

// StoreConfig is the store to serve.
type StoreConfig struct {
	Kind      StoreKind
	Reference settings.StoreReference // as configured, with parameters

	StoreDir string // logical store directory, the prefix of every store path

	// Of local stores only.
	Root     string // directory prefixed to all others; empty for none
	StateDir string // database, locks, roots
	LogDir   string // build logs
	RealDir  string // where the store directory physically is
	BuildDir string // build-dir parameter; empty for the setting's
	ReadOnly bool   // also of the scheme dummy
	// RequireSigs says whether input-addressed paths need a trusted signature: the parameter, else the setting.
	RequireSigs           bool
	IgnoreGCDeleteFailure bool
	UseRootsDaemon        bool

	Overlay *OverlayConfig // of the scheme local-overlay, else nil

	SocketPath string // of the scheme unix: the socket of the other daemon

	// Of all stores.
	PathInfoCacheSize int
	Trusted           bool
	Priority          int
	WantMassQuery     bool
	SystemFeatures    []string
}

// OverlayConfig is about a local store whose directory is an overlay file system.
type OverlayConfig struct {
	// LowerStore is the reference of the store beneath, not yet parsed; empty for the default one.
	LowerStore  string
	UpperLayer  string // the directory of what the overlay adds; empty if it is not given
	CheckMount  bool   // whether the overlay must be mounted accordingly
	RemountHook string // the program that mounts it anew; empty for none
}

// remoteSchemes are the other kinds that upstream knows. Release 2.34.8 asks for the experimental features neither of
// mounted-ssh-ng nor of local-overlay, though its manual says so.
var remoteSchemes = []string{"dummy", "file", "http", "https", "mounted-ssh-ng", "s3", "ssh", "ssh-ng"}

// resolveStore makes sense of the setting `store`.
func (l *loader) resolveStore() (StoreConfig, error) {
	ref, err := settings.ParseStoreReference(l.cfg.Settings.Store)
	if err != nil {
		return StoreConfig{}, err
	}
	return l.resolveReference(ref)
}

// ResolveStore makes sense of a reference to another store than the one that is configured, and gives what is to be
// warned of.
func ResolveStore(in Input, cfg *Config, ref settings.StoreReference) (StoreConfig, []string, error) {
	own := *cfg
	own.Warnings = nil
	l := loader{in: in, cfg: &own}
	store, err := l.resolveReference(ref)
	return store, own.Warnings, err
}

func (l *loader) resolveReference(ref settings.StoreReference) (StoreConfig, error) {
	r := storeResolver{loader: l, params: map[string]string{}, store: StoreConfig{Reference: ref}}
	for _, p := range ref.Params {
		r.params[p.Name] = p.Value
	}
	if err := r.common(); err != nil {
		return r.store, err
	}
	if err := r.byKind(ref); err != nil {
		return r.store, err
	}
	if r.store.Kind != StoreRemote {
		r.warnUnknownParams()
	}
	return r.store, nil
}

// storeResolver takes parameters away as it understands them.
type storeResolver struct {
	*loader
	params map[string]string
	store  StoreConfig
	err    error
}

func (r *storeResolver) byKind(ref settings.StoreReference) error {
	if ref.Kind == settings.ReferenceAuto {
		return r.auto()
	}
	location, err := url.PathUnescape(ref.Authority)
	if err != nil {
		return fmt.Errorf("invalid URI parameter '%s': %w", ref.Authority, err)
	}
	switch ref.Scheme {
	case "local":
		return r.local(location)
	case "local-overlay":
		return r.overlay(location)
	case "unix":
		return r.socket(location)
	}
	if !slices.Contains(remoteSchemes, ref.Scheme) {
		return fmt.Errorf("don't know how to open Nix store with scheme '%s'", ref.Scheme)
	}
	r.store.Kind = StoreRemote
	if ref.Scheme == "dummy" {
		r.store.ReadOnly = r.bool("read-only", true)
		r.warnUnknownParams()
	}
	return r.err
}

// auto chooses by what is there: a state directory that can be used, another daemon, or for a user on a machine
// without either a store in the home directory.
func (r *storeResolver) auto() error {
	stateDir, ok := r.params["state"]
	if !ok {
		stateDir = r.cfg.StateDir
	}
	fs := r.in.FS
	_, hasStoreDir := r.in.Getenv("NIX_STORE_DIR")
	_, hasStateDir := r.in.Getenv("NIX_STATE_DIR")
	switch {
	case fs.Accessible(stateDir):
	case fs.Exists(r.cfg.SocketPath):
		return r.socket("")
	case strings.HasSuffix(r.in.Host.System, "-linux") && !fs.Exists(stateDir) && len(r.store.Reference.Params) == 0 &&
		!r.in.Host.Root && !hasStoreDir && !hasStateDir:
		root := filepath.Join(r.dataDir(), "root")
		if !fs.Exists(root) {
			r.warn(fmt.Sprintf("%s does not exist, so Nix will use %s as a chroot store", stateDir, settings.QuotePath(root)))
		}
		return r.local(root)
	}
	return r.local("")
}

func (r *storeResolver) socket(location string) (err error) {
	r.store.Kind, r.store.SocketPath = StoreRemote, r.cfg.SocketPath
	if location != "" {
		r.store.SocketPath, err = settings.ParseAbsPath("path", location)
	}
	return err
}

// common reads the parameters of every store.
func (r *storeResolver) common() error {
	storeDir := r.nonEmpty(defaultStoreDir, "NIX_STORE_DIR", "NIX_STORE")
	r.store.StoreDir = r.path("store", storeDir)
	r.store.PathInfoCacheSize = r.int("path-info-cache-size", 65536)
	r.store.Trusted = r.bool("trusted", false)
	r.store.Priority = r.int("priority", 0)
	r.store.WantMassQuery = r.bool("want-mass-query", false)
	r.store.SystemFeatures = r.cfg.Settings.SystemFeatures
	if value, ok := r.take("system-features"); ok {
		c := r.cfg.Settings.Clone()
		r.fail(c.Set("system-features", value))
		r.store.SystemFeatures = c.SystemFeatures
	}
	return r.err
}

// overlay reads the parameters of a local store on an overlay file system.
func (r *storeResolver) overlay(location string) error {
	lower, _ := r.take("lower-store")
	r.store.Overlay = &OverlayConfig{
		LowerStore: lower, UpperLayer: r.optionalPath("upper-layer"), CheckMount: r.bool("check-mount", true),
		RemountHook: r.optionalPath("remount-hook"),
	}
	return r.local(location)
}

// optionalPath gives "" where nothing is said.
func (r *storeResolver) optionalPath(name string) string {
	if _, ok := r.params[name]; !ok {
		return ""
	}
	return r.path(name, "")
}

// local reads the parameters of a store on this host; location is a root directory.
func (r *storeResolver) local(location string) error {
	s := &r.store
	s.Kind = StoreLocal
	if root, ok := r.take("root"); ok {
		location = root
	}
	s.StateDir, s.LogDir, s.RealDir = r.cfg.StateDir, r.cfg.LogDir, s.StoreDir
	if location != "" {
		root, err := settings.ParseAbsPath("root", location)
		if err != nil {
			return err
		}
		s.Root = root
		s.StateDir, s.LogDir, s.RealDir = path.Join(root, "nix/var/nix"), path.Join(root, "nix/var/log/nix"), path.Join(root, "nix/store")
	}
	s.StateDir = r.path("state", s.StateDir)
	s.LogDir = r.path("log", s.LogDir)
	s.RealDir = r.path("real", s.RealDir)
	if dir, ok := r.take("build-dir"); ok && dir != "" {
		var err error
		s.BuildDir, err = settings.ParseAbsPath("build-dir", dir)
		r.fail(err)
	}
	s.RequireSigs = r.bool("require-sigs", r.cfg.Settings.RequireSigs)
	s.ReadOnly = r.bool("read-only", false)
	s.IgnoreGCDeleteFailure = r.guardedBool("ignore-gc-delete-failure")
	s.UseRootsDaemon = r.guardedBool("use-roots-daemon")
	if r.err == nil && s.ReadOnly {
		return r.cfg.Settings.ExperimentalFeatures.Require(settings.ReadOnlyLocalStore)
	}
	return r.err
}

func (r *storeResolver) warnUnknownParams() {
	for _, p := range r.store.Reference.Params {
		if _, left := r.params[p.Name]; left {
			r.warn((&settings.UnknownSettingError{Name: p.Name}).Error())
		}
	}
}

func (r *storeResolver) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *storeResolver) take(name string) (string, bool) {
	v, ok := r.params[name]
	delete(r.params, name)
	return v, ok
}

func (r *storeResolver) path(name, fallback string) string {
	value, ok := r.take(name)
	if !ok {
		value = fallback
	}
	p, err := settings.ParseAbsPath(name, value)
	r.fail(err)
	return p
}

func (r *storeResolver) bool(name string, fallback bool) bool {
	value, ok := r.take(name)
	if !ok {
		return fallback
	}
	b, err := settings.ParseBool(name, value)
	r.fail(err)
	return b
}

// guardedBool needs the experimental feature of overlay stores.
func (r *storeResolver) guardedBool(name string) bool {
	if _, ok := r.params[name]; ok && !r.cfg.Settings.ExperimentalFeatures.Enabled(settings.LocalOverlayStore) {
		r.take(name)
		r.warn(fmt.Sprintf("Ignoring setting '%s' because experimental feature '%s' is not enabled",
			name, settings.LocalOverlayStore))
		return false
	}
	return r.bool(name, false)
}

func (r *storeResolver) int(name string, fallback int) int {
	value, ok := r.take(name)
	if !ok {
		return fallback
	}
	digits, negative := strings.CutPrefix(value, "-")
	n, err := settings.ParseInteger(digits, 31)
	if err != nil {
		r.fail(&settings.UsageError{Msg: fmt.Sprintf("setting '%s' has invalid value '%s'", name, value)})
		return fallback
	}
	if negative {
		return -int(n)
	}
	return int(n)
}
