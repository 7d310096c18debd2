package settings

import (
	"errors"
	"slices"
	"strings"
)

// NameValue is one named override of a client.
type NameValue struct{ Name, Value string }

// ClientOptions is the content of a SetOptions request, without its obsolete fields.
type ClientOptions struct {
	KeepFailed, KeepGoing, TryFallback bool
	Verbosity                          uint64
	MaxBuildJobs                       uint64
	MaxSilentTime                      uint64 // seconds
	UseBuildHook                       bool   // obsolete, has no effect
	VerboseBuild                       uint64 // 0 shows build output, anything else hides it
	BuildCores                         uint64
	UseSubstitutes                     bool
	Overrides                          []NameValue
}

// Warning is a message for the client's log, to be sent when the client's verbosity is at least Level. LevelWarn
// is shown after `warning: `; LevelDebug as it stands.
type Warning struct {
	Level Verbosity
	Text  string
	// BadValue says that Text is the error of a value that does not parse.
	BadValue bool
}

// ApplyClient returns the settings of a connection whose client sent opts; s is not changed. The fixed fields count
// for everybody. Of the named overrides a trusted client may set whatever belongs to the store and file transfer
// groups; other names are silently passed over. An untrusted client may set a few harmless ones, choose among the
// substituters that the daemon trusts, and is warned about all others. A value that does not parse is a warning (*UsageError). Any other error, such as that of a
// path that is not absolute, fails the request, as it does upstream: what comes after it in the order of names is not
// looked at, and what came before counts.
func (s *Settings) ApplyClient(opts ClientOptions, trusted bool) (*Settings, []Warning, error) {
	a := clientApply{s: s.Clone(), trusted: trusted}
	a.fixedFields(&opts)
	// Upstream reads the overrides into a sorted map, in which the first of equal names stays.
	overrides := slices.Clone(opts.Overrides)
	slices.SortStableFunc(overrides, func(x, y NameValue) int { return strings.Compare(x.Name, y.Name) })
	overrides = slices.CompactFunc(overrides, func(x, y NameValue) bool { return x.Name == y.Name })
	for _, o := range overrides {
		err := a.override(o.Name, o.Value)
		var usage *UsageError
		switch {
		case errors.As(err, &usage):
			a.warnings = append(a.warnings, Warning{LevelWarn, err.Error(), true})
		case err != nil:
			return a.s, a.warnings, err
		}
	}
	return a.s, a.warnings, nil
}

type clientApply struct {
	s        *Settings
	trusted  bool
	warnings []Warning
}

func (a *clientApply) warn(text string) {
	a.warnings = append(a.warnings, Warning{Level: LevelWarn, Text: text})
}

func (a *clientApply) fixedFields(opts *ClientOptions) {
	a.s.KeepFailed = opts.KeepFailed
	a.s.KeepGoing = opts.KeepGoing
	a.s.Fallback = opts.TryFallback
	a.s.Verbosity = clampVerbosity(opts.Verbosity)
	a.s.MaxJobs = uint(opts.MaxBuildJobs)
	a.s.MaxSilentTime = Seconds(opts.MaxSilentTime)
	a.s.VerboseBuild = opts.VerboseBuild == 0
	a.s.Cores = uint(opts.BuildCores)
	a.s.Substitute = opts.UseSubstitutes
}

func (a *clientApply) override(name, value string) error {
	switch {
	case name == "ssh-auth-sock":
		return nil
	case name == "experimental-features":
		if parseFeaturesQuietly(value) != a.s.ExperimentalFeatures {
			a.warnings = append(a.warnings, Warning{Level: LevelDebug, Text: "Ignoring the client-specified experimental features"})
		}
		return nil
	case name == "plugin-files":
		a.warn("Ignoring the client-specified plugin-files.\n" +
			"The client specifying plugins to the daemon never made sense, and was removed in Nix >=2.14.")
		return nil
	case a.trusted || harmless(name, value):
		return a.set(name, value)
	case name == "substituters" || name == "binary-caches":
		return a.filterSubstituters(value)
	}
	a.warn("ignoring the client-specified setting '" + name +
		"', because it is a restricted setting and you are not a trusted user")
	return nil
}

// parseFeaturesQuietly takes the names for what they are: unknown ones are dropped, and none implies another.
func parseFeaturesQuietly(value string) FeatureSet {
	var set FeatureSet
	for _, name := range tokens(value) {
		if f, ok := ParseFeature(name); ok {
			set |= Features(f)
		}
	}
	return set
}

// harmless names what everybody may set, by primary name only.
func harmless(name, value string) bool {
	switch name {
	case "timeout", "max-silent-time", "build-poll-interval", "connect-timeout":
		return true
	case "builders":
		return value == ""
	}
	return false
}

// set sets what lives in the groups that the wire reaches, and passes over everything else in silence.
func (a *clientApply) set(name, value string) error {
	i, _, ok := a.s.find(name)
	if !ok || table[i].Group != GroupStore && table[i].Group != GroupFileTransfer {
		return nil
	}
	err := a.s.SetWarn(name, value, a.warn)
	var unknown *UnknownSettingError
	if errors.As(err, &unknown) {
		return nil
	}
	return err
}

// filterSubstituters keeps what the daemon's own substituters or trusted-substituters contain, tried as written and
// with a slash at the end.
func (a *clientApply) filterSubstituters(value string) error {
	var kept []string
	for _, word := range tokens(value) {
		ref, err := ParseStoreReference(word)
		if err != nil {
			return err
		}
		if canonical, ok := a.trustedReference(ref); ok {
			kept = append(kept, canonical)
			continue
		}
		a.warn("ignoring untrusted substituter '" + word + "', you are not a trusted user.\n" +
			"Run `man nix.conf` for more information on the `substituters` configuration option.")
	}
	a.s.Substituters = kept
	return nil
}

func (a *clientApply) trustedReference(ref StoreReference) (string, bool) {
	if canonical := ref.String(); a.trusts(canonical) {
		return canonical, true
	}
	if ref.Kind != ReferenceURL || strings.HasSuffix(ref.Authority, "/") {
		return "", false
	}
	ref.Authority += "/"
	canonical := ref.String()
	return canonical, a.trusts(canonical)
}

func (a *clientApply) trusts(canonical string) bool {
	return slices.Contains(a.s.TrustedSubstituters, canonical) || slices.Contains(a.s.Substituters, canonical)
}
