package build

import (
	"fmt"
	"strings"

	"nixdaemon/worker/settings"
)

// outcomeSettings is a text that is equal for settings under which a derivation is built the same way and the same
// failures come about.
func outcomeSettings(s *settings.Settings) string {
	var b strings.Builder
	for _, v := range []any{
		s.MaxSilentTime, s.Timeout, s.MaxBuildLogSize, s.EffectiveCores(), s.KeepFailed, s.System, s.ExtraPlatforms, s.SystemFeatures,
		s.Sandbox, s.SandboxPaths, s.SandboxFallback, s.RequireDropSupplementary, s.SandboxDevShmSize, s.SandboxBuildDir, s.BuildDir,
		s.AllowedImpureHostDeps, s.RunDiffHook, s.DiffHook, s.PreBuildHook, s.PostBuildHook, s.FilterSyscalls, s.AllowNewPrivileges,
		s.ImpersonateLinux26, s.UseCgroups, s.AutoAllocateUIDs, s.StartID, s.IDCount, s.BuildUsersGroup, s.ImpureEnv, s.HashedMirrors, s.NetrcFile, s.SSLCertFile,
		s.KeepBuildLog, s.CompressBuildLog, s.SecretKeyFiles, s.AutoOptimiseStore, s.ExperimentalFeatures, s.Builders, s.BuildHook, s.BuildersUseSubstitutes, s.Fallback, s.ExternalBuilders,
		s.IgnoredACLs, s.FsyncStorePaths, s.ConnectTimeout, s.StalledDownloadTimeout, s.DownloadAttempts, s.DownloadSpeed,
		s.UserAgentSuffix, s.HTTP2,
	} {
		fmt.Fprintf(&b, "%v\x00", v)
	}
	return b.String()
}
