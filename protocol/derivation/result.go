package derivation

import "nixdaemon/protocol/pathinfo"

// BuildStatus is how a build ended (libstore/build-result.hh).
type BuildStatus uint8

// The statuses, as on the wire. 7 was CachedFailure.
const (
	StatusBuilt                  BuildStatus = 0
	StatusSubstituted            BuildStatus = 1
	StatusAlreadyValid           BuildStatus = 2
	StatusPermanentFailure       BuildStatus = 3
	StatusInputRejected          BuildStatus = 4
	StatusOutputRejected         BuildStatus = 5
	StatusTransientFailure       BuildStatus = 6
	StatusTimedOut               BuildStatus = 8
	StatusMiscFailure            BuildStatus = 9
	StatusDependencyFailed       BuildStatus = 10
	StatusLogLimitExceeded       BuildStatus = 11
	StatusNotDeterministic       BuildStatus = 12
	StatusResolvesToAlreadyValid BuildStatus = 13
	StatusNoSubstituters         BuildStatus = 14
)

// Success tells whether the outputs are there.
func (s BuildStatus) Success() bool {
	switch s {
	case StatusBuilt, StatusSubstituted, StatusAlreadyValid, StatusResolvesToAlreadyValid:
		return true
	}
	return false
}

// BuildResult tells how one build ended.
type BuildResult struct {
	Status BuildStatus
	// ErrorMsg is empty on success.
	ErrorMsg           string
	TimesBuilt         uint64
	IsNonDeterministic bool
	// StartTime and StopTime are in seconds since 1970, 0 if nothing ran.
	StartTime, StopTime int64
	// CPUUser and CPUSystem are in microseconds, nil when unknown.
	CPUUser, CPUSystem *int64
	// BuiltOutputs maps output names to what they became; empty on failure.
	BuiltOutputs map[string]pathinfo.Realisation
}

// KeyedBuildResult is the result for one request.
type KeyedBuildResult struct {
	Path DerivedPath
	BuildResult
}
