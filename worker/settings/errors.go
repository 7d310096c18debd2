package settings

import "fmt"

// UsageError is a value, flag or line of configuration that cannot be accepted. Its text is upstream's.
type UsageError struct{ Msg string }

func (e *UsageError) Error() string { return e.Msg }

func usagef(format string, args ...any) error {
	return &UsageError{Msg: fmt.Sprintf(format, args...)}
}

// UnknownSettingError says that no setting has this name (or that an `extra-` was put before one that cannot be
// appended to). Its text is the warning that upstream prints.
type UnknownSettingError struct{ Name string }

func (e *UnknownSettingError) Error() string { return fmt.Sprintf("unknown setting '%s'", e.Name) }

// DisabledFeatureError says that an experimental feature is needed and not enabled. Its text is upstream's.
type DisabledFeatureError struct {
	Feature Feature
	Reason  string // why it was needed; may be empty
}

func (e *DisabledFeatureError) Error() string {
	reason := ""
	if e.Reason != "" {
		reason = " (" + e.Reason + ")"
	}
	return fmt.Sprintf("experimental Nix feature '%s' is disabled%s; add '--extra-experimental-features %s' to enable it",
		e.Feature, reason, e.Feature)
}
