package settings

import "math"

// constantDefaults are the defaults that no host changes, in the order of the fields of Settings.
func constantDefaults() *Settings {
	return &Settings{
		LogLines:             25,
		MaxJobs:              1,
		MaxSubstitutionJobs:  16,
		BuildHook:            []string{"nix", "__build-remote"},
		BuildHookKillTimeout: 500,
		Substitute:           true,
		Substituters:         []string{"https://cache.nixos.org/"},
		BuildPollInterval:    5,

		GCReservedSpace:      8 << 20,
		KeepDerivations:      true,
		MaxFree:              math.MaxInt64,
		MinFreeCheckInterval: 5,
		FsyncMetadata:        true,
		NarBufferSize:        32 << 20,
		KeepBuildLog:         true,
		CompressBuildLog:     true,
		RequireSigs:          true,
		TrustedPublicKeys:    []string{"cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="},
		IgnoredACLs:          []string{"security.csm", "security.selinux", "system.nfs4_acl"},
		Store:                "auto",

		StartID:           56930,
		IDCount:           128,
		SandboxFallback:   true,
		SandboxDevShmSize: "50%",
		SandboxBuildDir:   "/build",
		FilterSyscalls:    true,

		NarinfoCacheNegativeTTL: 3600,
		NarinfoCachePositiveTTL: 30 * 24 * 3600,
		NarinfoCacheMetaTTL:     7 * 24 * 3600,
		HTTP2:                   true,
		HTTPConnections:         25,
		ConnectTimeout:          15,
		StalledDownloadTimeout:  300,
		DownloadAttempts:        5,
		RetryDelay:              100,
		RetryDelayRateLimited:   5000,
		RetryMaxDelay:           60000,
		RetryJitter:             true,
		DownloadBufferSize:      1 << 20,
		PrintMissing:            true,

		TrustedUsers: []string{"root"},
		AllowedUsers: []string{"*"},

		Verbosity:    LevelInfo,
		VerboseBuild: true,
	}
}
