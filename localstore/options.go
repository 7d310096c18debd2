package localstore

import (
	"path/filepath"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// Options say where a store is and how it is kept. See [DefaultOptions] for upstream's values.
type Options struct {
	// StoreDir is the directory that paths are printed with; zero means /nix/store.
	StoreDir storepath.Dir
	// RealDir is where the files are; zero means StoreDir.
	RealDir string
	// StateDir holds the database, roots and locks; zero means /nix/var/nix.
	StateDir string
	// LogDir holds build logs; zero means /nix/var/log/nix.
	LogDir string

	// Overlay says what is beneath a store whose directory is an overlay; nil for a plain store. An open store closes what
	// is beneath it.
	Overlay *Overlay
	// ReadOnly changes nothing on disk; every change fails and temporary roots are not written.
	ReadOnly bool
	// BuildUsersGroup owns the store directory when we are root; empty leaves the directory's owner alone.
	BuildUsersGroup string
	// AllowSymlinked accepts links in the path of the store directory.
	AllowSymlinked bool
	// PrivateMounts says that the process has a mount namespace of its own, so that a store on a read-only
	// mount may be remounted; otherwise such a store is an error, if we are root.
	PrivateMounts bool

	// UseWAL, FsyncMetadata and CADerivations are the database's: the write-ahead log (false: a rollback journal),
	// syncing at checkpoints, and tables for realisations.
	UseWAL, FsyncMetadata, CADerivations bool
	// ReservedSpace is the size of the file that a collector deletes to have room to work, in bytes; negative for
	// leaving the file as it is.
	ReservedSpace int64
	// Features say what derivations may contain; zero allows none of the experimental features.
	Features derivation.Features
	// PathInfoCacheSize is how many paths are remembered; zero means 65536.
	PathInfoCacheSize int

	// FsyncStorePaths makes contents durable before they are registered, and the registration before it is acknowledged,
	// with one sync of the file system for all that wait for it.
	FsyncStorePaths bool
	// SyncBeforeRegistering syncs the whole file system before each registration.
	SyncBeforeRegistering bool
	// SyncEvery is how long after a registration the file systems are synced at the latest, in the background, so that
	// a power cut damages nothing that was registered before: what came later is verified when the store is opened
	// after a restart of the machine. Zero means 5 s; negative neither syncs nor verifies.
	SyncEvery time.Duration
	// SyncBytes is after how many bytes registered that happens sooner; zero means 1 GiB.
	SyncBytes int64
	// CaseHack renames entries that differ in case alone (setting use-case-hack).
	CaseHack bool
	// IgnoredACLs are extended attributes that store objects may keep.
	IgnoredACLs []string
	// Preallocate sets room aside for the files of an archive before they are written (the setting
	// preallocate-contents).
	Preallocate bool
	// NarBufferSize is up to how many bytes a dump of unknown path is kept in memory; zero means 32 MiB.
	NarBufferSize int

	// Recovering, if not nil, is called when what was registered before a restart of the machine begins to be verified, and
	// for each path that is done, from any goroutine.
	Recovering func(done, total uint64)
	// Log receives what the store itself has to say to its administrator; nil drops it.
	Log func(level activity.Level, text string)
	// Step, if not nil, is called after each step of a change with the step's name. If it fails the change ends there,
	// as if the process had died: tests of crashes use it.
	Step func(name string) error
}

const (
	defaultStateDir      = "/nix/var/nix"
	defaultLogDir        = "/nix/var/log/nix"
	defaultCacheSize     = 65536
	defaultNarBufferSize = 32 << 20
	defaultReservedSpace = 8 << 20
	defaultSyncEvery     = 5 * time.Second
	defaultSyncBytes     = 1 << 30
)

// DefaultOptions are upstream's defaults for the store at /nix/store.
func DefaultOptions() Options {
	return Options{
		UseWAL:        true,
		FsyncMetadata: true,
		ReservedSpace: defaultReservedSpace,
		IgnoredACLs:   []string{"security.selinux", "system.nfs4_acl", "security.csm"},
	}
}

// withDefaults fills in what zero means.
func (o Options) withDefaults() Options {
	if o.StoreDir == "" {
		o.StoreDir = storepath.DefaultDir
	}
	if o.RealDir == "" {
		o.RealDir = string(o.StoreDir)
	}
	if o.StateDir == "" {
		o.StateDir = defaultStateDir
	}
	if o.LogDir == "" {
		o.LogDir = defaultLogDir
	}
	if o.PathInfoCacheSize == 0 {
		o.PathInfoCacheSize = defaultCacheSize
	}
	if o.NarBufferSize == 0 {
		o.NarBufferSize = defaultNarBufferSize
	}
	if o.SyncEvery == 0 {
		o.SyncEvery = defaultSyncEvery
	}
	if o.SyncBytes == 0 {
		o.SyncBytes = defaultSyncBytes
	}
	if o.Log == nil {
		o.Log = func(activity.Level, string) {}
	}
	if o.Recovering == nil {
		o.Recovering = func(_, _ uint64) {}
	}
	if o.Step == nil {
		o.Step = func(string) error { return nil }
	}
	o.RealDir = filepath.Clean(o.RealDir)
	return o
}

func (o *Options) linksDir() string { return filepath.Join(o.RealDir, linksName) }

func (o *Options) dbDir() string { return filepath.Join(o.StateDir, "db") }

func (o *Options) tempRootsDir() string { return filepath.Join(o.StateDir, "temproots") }

func (o *Options) rootsDir() string { return filepath.Join(o.StateDir, "gcroots") }

// tracksDurability tells whether the store is synced, and verified after a restart of the machine.
func (o *Options) tracksDurability() bool { return !o.ReadOnly && o.SyncEvery > 0 }
