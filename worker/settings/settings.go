// Package settings holds the configuration of the daemon as values: the name, type, aliases, default and group of
// every setting, and the rule of who may change which.
//
// A Settings is one consistent choice of values. The daemon loads one from its files, environment and command line
// (package daemon/config) and never changes it afterwards; every connection begins with a pointer to that same base.
// When a client sends its own wishes (ClientOptions), ApplyClient answers with a new Settings and leaves the base
// alone, so what one client asks for is never seen by another. Lists, sets and maps inside a Settings are never
// changed in place, hence a copy of the struct is a copy of the settings.
//
// Each setting is one row of a table: its name and aliases, its Group, the experimental Feature that guards it, and a
// codec that parses and renders its text form. Settings that only concern clients (evaluation, flakes, prompts) have
// rows too, since they stand in the same nix.conf: they are checked and remembered, and affect nothing.
//
// Names, types, defaults and message texts are those of the upstream release 2.34.8; the few settings that upstream
// added in 2.35 and 2.36 are known as well.
package settings

import (
	"math"
	"time"
)

// Verbosity is how much is logged: messages whose level is at most this are shown. The numbers are those of the
// worker protocol.
type Verbosity uint8

// The levels of a message, most important first.
const (
	LevelError Verbosity = iota
	LevelWarn
	LevelNotice
	LevelInfo
	LevelTalkative
	LevelChatty
	LevelDebug
	LevelVomit
)

// Seconds is a span of time in whole seconds, as upstream stores and prints it. Zero usually means "no limit".
type Seconds int64

// Duration converts to a time.Duration. Values beyond its range (292 years) become the largest one, negative ones 0.
func (s Seconds) Duration() time.Duration {
	switch {
	case s <= 0:
		return 0
	case int64(s) > int64(math.MaxInt64/time.Second):
		return math.MaxInt64
	}
	return time.Duration(s) * time.Second
}

// SandboxMode is the value of the `sandbox` setting.
type SandboxMode uint8

// The three modes.
const (
	SandboxFalse   SandboxMode = iota // never
	SandboxTrue                       // always
	SandboxRelaxed                    // unless the derivation asks otherwise
)

// String renders the mode as it is written in nix.conf.
func (m SandboxMode) String() string {
	switch m {
	case SandboxTrue:
		return "true"
	case SandboxRelaxed:
		return "relaxed"
	}
	return "false"
}

// SandboxPath is one item of `sandbox-paths`: Source on the host appears as Target in the sandbox. A missing source
// is an error unless Optional.
type SandboxPath struct {
	Target, Source string
	Optional       bool
}

// ExternalBuilder is one item of `external-builders`: a program that builds derivations of the given systems.
type ExternalBuilder struct {
	Systems []string `json:"systems"`
	Program string   `json:"program"`
	Args    []string `json:"args"`
}

// Settings is one complete set of values. Fields are named after the setting; see the table for types, aliases and
// defaults, and upstream's nix.conf manual for what each means. Treat lists and maps as read-only.
type Settings struct {
	// Scheduling and substitution.
	KeepGoing              bool
	Fallback               bool
	LogLines               uint64
	MaxJobs                uint // parallel local builds; 0 builds nothing locally
	MaxSubstitutionJobs    uint
	MaxSilentTime          Seconds
	Timeout                Seconds
	BuildHook              []string // program and arguments
	BuildHookKillTimeout   uint64   // milliseconds
	Builders               string   // machines, or `@file`
	AlwaysAllowSubstitutes bool
	BuildersUseSubstitutes bool
	Substitute             bool
	Substituters           []string // canonical store references
	MaxBuildLogSize        uint64   // bytes; 0 is unlimited
	BuildPollInterval      uint     // seconds
	PostBuildHook          string

	// Local store.
	GCReservedSpace       int64 // bytes
	KeepOutputs           bool
	KeepDerivations       bool
	MinFree               uint64 // bytes; 0 turns automatic collection off
	MaxFree               uint64 // bytes
	MinFreeCheckInterval  uint64 // seconds
	FsyncMetadata         bool
	FsyncStorePaths       bool
	SyncBeforeRegistering bool
	AutoOptimiseStore     bool
	NarBufferSize         uint64 // bytes
	AllowSymlinkedStore   bool
	UseSQLiteWAL          bool
	KeepBuildLog          bool
	CompressBuildLog      bool
	RequireSigs           bool
	TrustedPublicKeys     []string
	SecretKeyFiles        []string
	WarnLargePath         uint64   // warn-large-path-threshold, bytes; 0 is off
	IgnoredACLs           []string // sorted
	Store                 string   // canonical store reference

	// Local builds.
	Cores                      uint // 0 means all of them, see EffectiveCores
	KeepFailed                 bool
	System                     string
	ExtraPlatforms             []string // sorted
	SystemFeatures             []string // sorted
	StartID                    uint32
	IDCount                    uint32
	BuildUsersGroup            string
	AutoAllocateUIDs           bool
	UseCgroups                 bool
	ImpersonateLinux26         bool
	Sandbox                    SandboxMode
	SandboxPaths               []SandboxPath // sorted by target
	SandboxFallback            bool
	RequireDropSupplementary   bool // require-drop-supplementary-groups
	SandboxDevShmSize          string
	SandboxBuildDir            string
	BuildDir                   string   // empty: beneath the state directory
	AllowedImpureHostDeps      []string // sorted
	DarwinLogSandboxViolations bool
	RunDiffHook                bool
	DiffHook                   string // empty: none
	PreBuildHook               string
	FilterSyscalls             bool
	AllowNewPrivileges         bool
	ImpureEnv                  map[string]string
	HashedMirrors              []string
	ExternalBuilders           []ExternalBuilder

	// Binary caches and file transfer.
	TrustedSubstituters     []string // canonical store references, sorted
	NarinfoCacheNegativeTTL uint     // seconds
	NarinfoCachePositiveTTL uint     // seconds
	NarinfoCacheMetaTTL     uint     // seconds
	HTTP2                   bool
	HTTP3                   bool
	UserAgentSuffix         string
	HTTPConnections         uint64 // 0 is unlimited
	ConnectTimeout          uint64 // seconds; 0 is no limit
	StalledDownloadTimeout  uint64 // seconds
	DownloadAttempts        uint
	RetryDelay              uint // filetransfer-retry-delay, milliseconds
	RetryDelayRateLimited   uint // milliseconds
	RetryMaxDelay           uint // milliseconds
	RetryJitter             bool
	DownloadBufferSize      uint64 // bytes
	DownloadSpeed           uint   // KiB per second; 0 is unlimited
	NetrcFile               string
	SSLCertFile             string // empty: none
	PrintMissing            bool
	UseXDGBaseDirectories   bool

	// The daemon as a process; never set by a client.
	TrustedUsers          []string
	AllowedUsers          []string
	ExperimentalFeatures  FeatureSet
	ShowTrace             bool
	JSONLogPath           string // empty: none
	UseCaseHack           bool
	PreallocateContents   bool
	PluginFiles           []string
	AuditLogFile          string // ours: where privileged deeds are written as well; empty: nowhere
	DaemonLogFormat       string // ours: auto, human, json, journal or internal-json; empty is auto
	DaemonLogLevel        string // ours: error, warn, info or debug; empty: by Verbosity
	MetricsListenAddress  string // ours: host and port where metrics are served over TCP; empty: nowhere
	TraceEndpoint         string // ours: URL of a collector of traces; empty: none
	DrainTimeout          uint   // ours: seconds that clients may stay when the server is to end; 0: as long as they like
	MaxConnections        uint   // ours: connections at once; 0: chosen by the limit on open files
	MaxConnectionsPerUser uint   // ours: of one user who is neither trusted nor root; 0: a quarter of MaxConnections
	MaxRequestMemory      uint64 // ours: bytes that the requests under way may claim together; 0: 1 GiB
	MaxBuildMemory        uint64 // ours: bytes that all processes of a build may use together; 0: no limit
	MaxBuildProcesses     uint64 // ours: processes and threads that a build may have at once; 0: no limit
	QuickVerify           bool   // ours: whether verifying contents hashes only what looks changed
	MaxTotalJobs          uint   // ours: builds running at once for all clients together; 0: see TotalJobs

	// Not settings, but fixed fields of a client's options or flags of the command line.
	Verbosity    Verbosity
	VerboseBuild bool // whether build output is shown
	ReadOnlyMode bool // --readonly-mode

	facts      *Environment
	client     map[string]string // client-side settings that were given, rendered
	overridden overrides
}

// Clone returns a copy that may be changed with Set without affecting s.
func (s *Settings) Clone() *Settings {
	c := *s
	return &c
}

// EffectiveCores is the number of cores that a build is told to use: Cores, or when that is 0 the CPU limit of the
// daemon's cgroup, or else the number of CPUs.
func (s *Settings) EffectiveCores() uint {
	switch {
	case s.Cores != 0:
		return s.Cores
	case s.host().CPULimit != 0:
		return s.host().CPULimit
	}
	return s.host().cpus()
}

// TotalJobs is how many local builds may run at once for all clients together: `max-total-jobs`, or when that is 0
// the larger of `max-jobs` and the number of CPUs. Only the daemon's own base settings mean anything here.
func (s *Settings) TotalJobs() uint {
	if s.MaxTotalJobs != 0 {
		return s.MaxTotalJobs
	}
	return max(s.MaxJobs, s.host().cpus())
}
