package derivation

import (
	"errors"
	"fmt"

	"nixdaemon/protocol/pathinfo"
)

// BuildMode says what to do with outputs that exist.
type BuildMode uint8

// The build modes, as on the wire.
const (
	BuildNormal BuildMode = 0
	BuildRepair BuildMode = 1
	BuildCheck  BuildMode = 2
)

// ParseBuildMode reads a build mode's number on the wire.
func ParseBuildMode(n uint64) (BuildMode, error) {
	if n > uint64(BuildCheck) {
		return 0, errors.New("Invalid build mode")
	}
	return BuildMode(n), nil
}

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

// StatusCachedFailure is not sent any more; old peers may.
const StatusCachedFailure BuildStatus = 7

// ParseBuildStatus reads a status's number on the wire.
func ParseBuildStatus(n uint64) (BuildStatus, error) {
	if n > uint64(StatusNoSubstituters) {
		return 0, fmt.Errorf("Invalid BuildResult status %d from remote", n)
	}
	return BuildStatus(n), nil
}

// statusNames are the words of upstream's JSON and logs, by status.
var statusNames = [...]string{
	"Built", "Substituted", "AlreadyValid", "PermanentFailure", "InputRejected",
	"OutputRejected", "TransientFailure", "CachedFailure", "TimedOut", "MiscFailure",
	"DependencyFailed", "LogLimitExceeded", "NotDeterministic", "ResolvesToAlreadyValid",
	"NoSubstituters",
}

// String is upstream's word for the status.
func (s BuildStatus) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("BuildStatus(%d)", uint8(s))
}

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
