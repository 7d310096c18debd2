// Package remote has derivations built on other machines: it implements what package build knows as a build.Remote.
//
// [Builders] gives each client the machines that its settings name, in one of two forms. If the setting build-hook
// names a program of the administrator's, that program decides: a hook is one process of it, which speaks upstream's
// hook protocol. One is kept idle and asked about one derivation after the other; when it accepts one it goes on to build
// that one alone, and the next question is for a new process. Otherwise the machines of the setting builders are used
// without any program (pool): a [Machine] is one line of that setting.
//
// # Slots
//
// How many builds a machine has is known through locks on files in the directory current-load of the state directory,
// in upstream's format: hooks and daemons of upstream that use the same machines count ours, and we theirs.
//
// # Connections
//
// A connection to a machine outlives the build for a while, for the next one; over ssh:// only the login does, since what
// builds print there is known to be complete when the session has ended. A machine that cannot be reached is set
// aside for everybody, for a time that grows while that goes on.
package remote
