package settings

import (
	"net"
	"slices"
	"strings"
)

func boolean(at func(*Settings) *bool) codec {
	return field[bool]{at, parseBool, renderBool, nil}
}

func uinteger(at func(*Settings) *uint) codec {
	return field[uint]{at, parseUint[uint](32), renderUint[uint], nil}
}

func id(at func(*Settings) *uint32) codec {
	return field[uint32]{at, parseUint[uint32](32), renderUint[uint32], nil}
}

func size(at func(*Settings) *uint64) codec {
	return field[uint64]{at, parseUint[uint64](64), renderUint[uint64], nil}
}

func seconds(at func(*Settings) *Seconds) codec {
	return field[Seconds]{at, parseSigned[Seconds], renderSigned[Seconds], nil}
}

func offset(at func(*Settings) *int64) codec {
	return field[int64]{at, parseSigned[int64], renderSigned[int64], nil}
}

func text(at func(*Settings) *string) codec {
	return field[string]{at, parseString, renderString, nil}
}

func absPath(at func(*Settings) *string) codec {
	return field[string]{at, parseAbsPath, renderString, nil}
}

func optPath(at func(*Settings) *string) codec {
	return field[string]{at, parseOptPath, renderString, nil}
}

func list(at func(*Settings) *[]string) codec {
	return field[[]string]{at, parseList, joinWords, extendList}
}

func set(at func(*Settings) *[]string) codec {
	return field[[]string]{at, parseSet, joinWords, extendSet}
}

// oneOf is one of some words, or nothing.
func oneOf(at func(*Settings) *string, words ...string) codec {
	return field[string]{at, func(name, value string) (string, error) {
		if value != "" && !slices.Contains(words, value) {
			return "", usagef("setting '%s' has invalid value '%s', expected one of '%s'", name, value, strings.Join(words, "', '"))
		}
		return value, nil
	}, renderString, nil}
}

// parseAddress reads host:port, or nothing.
func parseAddress(name, value string) (string, error) {
	if _, _, err := net.SplitHostPort(value); value != "" && err != nil {
		return "", usagef("setting '%s' has invalid value '%s', expected 'host:port'", name, value)
	}
	return value, nil
}

func clientBool(def string) codec { return ignored[bool]{def, parseBool, renderBool, nil} }

func clientUint(def string) codec {
	return ignored[uint]{def, parseUint[uint](32), renderUint[uint], nil}
}

func clientText(def string) codec { return ignored[string]{def, parseString, renderString, nil} }

func clientList() codec { return ignored[[]string]{"", parseList, joinWords, extendList} }

func clientLint() codec { return ignored[string]{"ignore", parseLint, renderString, nil} }

// setting, process, own, transfer, client and later make rows of their group.
func setting(name string, c codec, aliases ...string) row {
	return row{Info{Name: name, Aliases: aliases, Group: GroupStore}, c}
}

func transfer(name string, c codec, aliases ...string) row {
	return row{Info{Name: name, Aliases: aliases, Group: GroupFileTransfer}, c}
}

func own(name string, c codec) row { return row{Info{Name: name, Group: GroupOwn}, c} }

func process(name string, c codec) row { return row{Info{Name: name, Group: GroupProcess}, c} }

func client(name string, c codec, aliases ...string) row {
	return row{Info{Name: name, Aliases: aliases, Group: GroupClient}, c}
}

func (r row) guarded(f Feature) row { r.Feature = f; return r }

func (r row) onlyOn(os string) row { r.OS = os; return r }

func (r row) later() row { r.Later = true; return r }

// table has every setting, sorted by name; All depends on the order.
var table = []row{
	client("abort-on-warn", clientBool("false")),
	client("accept-flake-config", clientBool("false")).guarded(Flakes),
	client("access-tokens", ignored[map[string]string]{"", parseMap, renderMap, extendMap}),
	client("allow-dirty", clientBool("true")),
	client("allow-dirty-locks", clientBool("false")).guarded(Flakes),
	client("allow-import-from-derivation", clientBool("true")),
	setting("allow-new-privileges", boolean(func(s *Settings) *bool { return &s.AllowNewPrivileges })).onlyOn("linux"),
	setting("allow-symlinked-store", boolean(func(s *Settings) *bool { return &s.AllowSymlinkedStore })),
	client("allow-unsafe-native-code-during-evaluation", clientBool("false")),
	setting("allowed-impure-host-deps", field[[]string]{
		func(s *Settings) *[]string { return &s.AllowedImpureHostDeps }, parsePathSet, joinWords, nil}),
	client("allowed-uris", clientList()),
	process("allowed-users", list(func(s *Settings) *[]string { return &s.AllowedUsers })),
	setting("always-allow-substitutes", boolean(func(s *Settings) *bool { return &s.AlwaysAllowSubstitutes })),
	own("audit-log-file", optPath(func(s *Settings) *string { return &s.AuditLogFile })),
	setting("auto-allocate-uids", boolean(func(s *Settings) *bool { return &s.AutoAllocateUIDs })).guarded(AutoAllocateUIDs),
	setting("auto-optimise-store", boolean(func(s *Settings) *bool { return &s.AutoOptimiseStore })),
	client("bash-prompt", clientText("")),
	client("bash-prompt-prefix", clientText("")),
	client("bash-prompt-suffix", clientText("")),
	setting("build-dir", optPath(func(s *Settings) *string { return &s.BuildDir })),
	setting("build-hook", list(func(s *Settings) *[]string { return &s.BuildHook })),
	setting("build-hook-kill-timeout", size(func(s *Settings) *uint64 { return &s.BuildHookKillTimeout })).later(),
	setting("build-poll-interval", uinteger(func(s *Settings) *uint { return &s.BuildPollInterval })),
	setting("build-users-group", text(func(s *Settings) *string { return &s.BuildUsersGroup })),
	setting("builders", text(func(s *Settings) *string { return &s.Builders })),
	setting("builders-use-substitutes", boolean(func(s *Settings) *bool { return &s.BuildersUseSubstitutes })),
	client("commit-lock-file-summary", clientText(""), "commit-lockfile-summary").guarded(Flakes),
	setting("compress-build-log", boolean(func(s *Settings) *bool { return &s.CompressBuildLog }), "build-compress-log"),
	transfer("connect-timeout", size(func(s *Settings) *uint64 { return &s.ConnectTimeout })),
	setting("cores", uinteger(func(s *Settings) *uint { return &s.Cores }), "build-cores"),
	own("daemon-log-format", oneOf(func(s *Settings) *string { return &s.DaemonLogFormat },
		"auto", "human", "json", "journal", "internal-json")),
	own("daemon-log-level", oneOf(func(s *Settings) *string { return &s.DaemonLogLevel }, "error", "warn", "info", "debug")),
	setting("darwin-log-sandbox-violations",
		boolean(func(s *Settings) *bool { return &s.DarwinLogSandboxViolations })).onlyOn("darwin"),
	client("debugger-on-trace", clientBool("false")),
	client("debugger-on-warn", clientBool("false")),
	setting("diff-hook", optPath(func(s *Settings) *string { return &s.DiffHook })),
	transfer("download-attempts",
		uinteger(func(s *Settings) *uint { return &s.DownloadAttempts }), "filetransfer-retry-attempts"),
	transfer("download-buffer-size", size(func(s *Settings) *uint64 { return &s.DownloadBufferSize })),
	transfer("download-speed", uinteger(func(s *Settings) *uint { return &s.DownloadSpeed })),
	own("drain-timeout", uinteger(func(s *Settings) *uint { return &s.DrainTimeout })),
	client("eval-attrset-update-layer-rhs-threshold", clientUint("16")),
	client("eval-cache", clientBool("true")),
	client("eval-profile-file", ignored[string]{"nix.profile", parsePath, renderString, nil}),
	client("eval-profiler", ignored[string]{"disabled", parseProfiler, renderString, nil}),
	client("eval-profiler-frequency", clientUint("99")),
	client("eval-system", clientText("")),
	process("experimental-features", featureSet{}),
	setting("external-builders", field[[]ExternalBuilder]{
		func(s *Settings) *[]ExternalBuilder { return &s.ExternalBuilders },
		parseExternalBuilders, renderExternalBuilders, nil}),
	setting("extra-platforms", set(func(s *Settings) *[]string { return &s.ExtraPlatforms })),
	setting("fallback", boolean(func(s *Settings) *bool { return &s.Fallback }), "build-fallback"),
	transfer("filetransfer-retry-delay", uinteger(func(s *Settings) *uint { return &s.RetryDelay })).later(),
	transfer("filetransfer-retry-delay-rate-limited",
		uinteger(func(s *Settings) *uint { return &s.RetryDelayRateLimited })).later(),
	transfer("filetransfer-retry-jitter", boolean(func(s *Settings) *bool { return &s.RetryJitter })).later(),
	transfer("filetransfer-retry-max-delay", uinteger(func(s *Settings) *uint { return &s.RetryMaxDelay })).later(),
	setting("filter-syscalls", boolean(func(s *Settings) *bool { return &s.FilterSyscalls })).onlyOn("linux"),
	client("flake-registry", clientText("https://channels.nixos.org/flake-registry.json")).guarded(Flakes),
	setting("fsync-metadata", boolean(func(s *Settings) *bool { return &s.FsyncMetadata })),
	setting("fsync-store-paths", boolean(func(s *Settings) *bool { return &s.FsyncStorePaths })),
	setting("gc-reserved-space", offset(func(s *Settings) *int64 { return &s.GCReservedSpace })),
	setting("hashed-mirrors", list(func(s *Settings) *[]string { return &s.HashedMirrors })),
	transfer("http-connections",
		size(func(s *Settings) *uint64 { return &s.HTTPConnections }), "binary-caches-parallel-connections"),
	transfer("http2", boolean(func(s *Settings) *bool { return &s.HTTP2 })),
	transfer("http3", boolean(func(s *Settings) *bool { return &s.HTTP3 })).later(),
	setting("id-count", id(func(s *Settings) *uint32 { return &s.IDCount })),
	client("ignore-try", clientBool("false")),
	setting("ignored-acls", set(func(s *Settings) *[]string { return &s.IgnoredACLs })),
	setting("impersonate-linux-26",
		boolean(func(s *Settings) *bool { return &s.ImpersonateLinux26 }), "build-impersonate-linux-26"),
	setting("impure-env", field[map[string]string]{
		func(s *Settings) *map[string]string { return &s.ImpureEnv },
		parseMap, renderMap, extendMap}).guarded(ConfigurableImpureEnv),
	process("json-log-path", optPath(func(s *Settings) *string { return &s.JSONLogPath })),
	setting("keep-build-log", boolean(func(s *Settings) *bool { return &s.KeepBuildLog }), "build-keep-log"),
	setting("keep-derivations", boolean(func(s *Settings) *bool { return &s.KeepDerivations }), "gc-keep-derivations"),
	client("keep-env-derivations", clientBool("false"), "env-keep-derivations"),
	setting("keep-failed", boolean(func(s *Settings) *bool { return &s.KeepFailed })),
	setting("keep-going", boolean(func(s *Settings) *bool { return &s.KeepGoing })),
	setting("keep-outputs", boolean(func(s *Settings) *bool { return &s.KeepOutputs }), "gc-keep-outputs"),
	client("lint-absolute-path-literals", clientLint()),
	client("lint-short-path-literals", clientLint()),
	client("lint-url-literals", clientLint()),
	setting("log-lines", size(func(s *Settings) *uint64 { return &s.LogLines })),
	setting("max-build-log-size", size(func(s *Settings) *uint64 { return &s.MaxBuildLogSize }), "build-max-log-size"),
	own("max-build-memory", size(func(s *Settings) *uint64 { return &s.MaxBuildMemory })),
	own("max-build-processes", size(func(s *Settings) *uint64 { return &s.MaxBuildProcesses })),
	client("max-call-depth", clientUint("10000")),
	own("max-connections", uinteger(func(s *Settings) *uint { return &s.MaxConnections })),
	own("max-connections-per-user", uinteger(func(s *Settings) *uint { return &s.MaxConnectionsPerUser })),
	setting("max-free", size(func(s *Settings) *uint64 { return &s.MaxFree })),
	setting("max-jobs", maxJobs{}, "build-max-jobs"),
	own("max-request-memory", size(func(s *Settings) *uint64 { return &s.MaxRequestMemory })),
	setting("max-silent-time", seconds(func(s *Settings) *Seconds { return &s.MaxSilentTime }), "build-max-silent-time"),
	setting("max-substitution-jobs",
		uinteger(func(s *Settings) *uint { return &s.MaxSubstitutionJobs }), "substitution-max-jobs"),
	own("max-total-jobs", uinteger(func(s *Settings) *uint { return &s.MaxTotalJobs })),
	own("metrics-listen-address", field[string]{
		func(s *Settings) *string { return &s.MetricsListenAddress }, parseAddress, renderString, nil}),
	setting("min-free", size(func(s *Settings) *uint64 { return &s.MinFree })),
	setting("min-free-check-interval", size(func(s *Settings) *uint64 { return &s.MinFreeCheckInterval })),
	setting("nar-buffer-size", size(func(s *Settings) *uint64 { return &s.NarBufferSize })),
	setting("narinfo-cache-meta-ttl", uinteger(func(s *Settings) *uint { return &s.NarinfoCacheMetaTTL })),
	setting("narinfo-cache-negative-ttl", uinteger(func(s *Settings) *uint { return &s.NarinfoCacheNegativeTTL })),
	setting("narinfo-cache-positive-ttl", uinteger(func(s *Settings) *uint { return &s.NarinfoCachePositiveTTL })),
	transfer("netrc-file", absPath(func(s *Settings) *string { return &s.NetrcFile })),
	client("nix-path", clientList()),
	client("nix-shell-always-looks-for-shell-nix", clientBool("true")),
	client("nix-shell-shebang-arguments-relative-to-script", clientBool("true")),
	process("plugin-files", field[[]string]{
		func(s *Settings) *[]string { return &s.PluginFiles }, parseList, joinWords, nil}),
	setting("post-build-hook", text(func(s *Settings) *string { return &s.PostBuildHook })),
	setting("pre-build-hook", text(func(s *Settings) *string { return &s.PreBuildHook })),
	process("preallocate-contents", boolean(func(s *Settings) *bool { return &s.PreallocateContents })),
	setting("print-missing", boolean(func(s *Settings) *bool { return &s.PrintMissing })),
	client("pure-eval", clientBool("false")),
	own("quick-verify", boolean(func(s *Settings) *bool { return &s.QuickVerify })),
	setting("require-drop-supplementary-groups",
		boolean(func(s *Settings) *bool { return &s.RequireDropSupplementary })),
	setting("require-sigs", boolean(func(s *Settings) *bool { return &s.RequireSigs })),
	client("restrict-eval", clientBool("false")),
	setting("run-diff-hook", boolean(func(s *Settings) *bool { return &s.RunDiffHook })),
	setting("sandbox", field[SandboxMode]{
		func(s *Settings) *SandboxMode { return &s.Sandbox }, parseSandbox, SandboxMode.String, nil},
		"build-use-chroot", "build-use-sandbox"),
	setting("sandbox-build-dir", absPath(func(s *Settings) *string { return &s.SandboxBuildDir })).onlyOn("linux"),
	setting("sandbox-dev-shm-size", text(func(s *Settings) *string { return &s.SandboxDevShmSize })).onlyOn("linux"),
	setting("sandbox-fallback", boolean(func(s *Settings) *bool { return &s.SandboxFallback })),
	setting("sandbox-paths", field[[]SandboxPath]{
		func(s *Settings) *[]SandboxPath { return &s.SandboxPaths },
		parseSandboxPaths, renderSandboxPaths, extendSandboxPaths}, "build-chroot-dirs", "build-sandbox-paths"),
	setting("secret-key-files", list(func(s *Settings) *[]string { return &s.SecretKeyFiles })),
	process("show-trace", boolean(func(s *Settings) *bool { return &s.ShowTrace })),
	transfer("ssl-cert-file", optPath(func(s *Settings) *string { return &s.SSLCertFile })),
	transfer("stalled-download-timeout", size(func(s *Settings) *uint64 { return &s.StalledDownloadTimeout })),
	setting("start-id", id(func(s *Settings) *uint32 { return &s.StartID })),
	setting("store", field[string]{func(s *Settings) *string { return &s.Store }, parseReference, renderString, nil}),
	setting("substitute", boolean(func(s *Settings) *bool { return &s.Substitute }), "build-use-substitutes"),
	setting("substituters", references{field[[]string]{
		func(s *Settings) *[]string { return &s.Substituters },
		parseReferenceList, joinWords, extendList}}, "binary-caches"),
	setting("sync-before-registering", boolean(func(s *Settings) *bool { return &s.SyncBeforeRegistering })),
	setting("system", text(func(s *Settings) *string { return &s.System })),
	setting("system-features", set(func(s *Settings) *[]string { return &s.SystemFeatures })),
	client("tarball-ttl", clientUint("3600")),
	setting("timeout", seconds(func(s *Settings) *Seconds { return &s.Timeout }), "build-timeout"),
	own("trace-endpoint", text(func(s *Settings) *string { return &s.TraceEndpoint })),
	client("trace-function-calls", clientBool("false")),
	client("trace-import-from-derivation", clientBool("false")),
	client("trace-verbose", clientBool("false")),
	client("trust-tarballs-from-git-forges", clientBool("true")),
	setting("trusted-public-keys",
		list(func(s *Settings) *[]string { return &s.TrustedPublicKeys }), "binary-cache-public-keys"),
	setting("trusted-substituters", references{field[[]string]{
		func(s *Settings) *[]string { return &s.TrustedSubstituters },
		parseReferenceSet, joinWords, extendReferenceSet}}, "trusted-binary-caches"),
	process("trusted-users", list(func(s *Settings) *[]string { return &s.TrustedUsers })),
	client("upgrade-nix-store-path-url", clientText("https://github.com/NixOS/nixpkgs/raw/master/"+
		"nixos/modules/installer/tools/nix-fallback-paths.nix")),
	process("use-case-hack", boolean(func(s *Settings) *bool { return &s.UseCaseHack })),
	setting("use-cgroups", boolean(func(s *Settings) *bool { return &s.UseCgroups })).onlyOn("linux"),
	client("use-registries", clientBool("true")).guarded(Flakes),
	setting("use-sqlite-wal", boolean(func(s *Settings) *bool { return &s.UseSQLiteWAL })),
	setting("use-xdg-base-directories", boolean(func(s *Settings) *bool { return &s.UseXDGBaseDirectories })),
	transfer("user-agent-suffix", text(func(s *Settings) *string { return &s.UserAgentSuffix })),
	client("warn-dirty", clientBool("true")),
	setting("warn-large-path-threshold", size(func(s *Settings) *uint64 { return &s.WarnLargePath })),
	client("warn-short-path-literals", shortPathLiterals{ignored[bool]{"false", parseBool, renderBool, nil}}),
}
