// Package darwinprofile writes the sandbox profiles that builders run under on macOS.
//
// [Options] say what a builder may do, in plain values; [Profile] turns them into the text of a profile in the language
// of sandbox(7), and [Arguments] into the command line of sandbox-exec(1) that puts a program under it. All of it is
// pure: nothing here looks at the machine, and the texts can be made and compared on any system.
//
// macOS has neither mount nor process namespaces: a builder sees the host's file system, and the profile says which
// paths of it exist for it. So a path is either visible under its own name or not at all.
//
// # Two kinds of profile
//
// An isolated builder is denied everything but what is listed: its build directory and the temporary directory, its
// outputs, its inputs and the host's paths that the configuration names, a few devices and system files, and with
// Network or LocalNetwork parts of the network. Any other builder is allowed everything but making files
// set-user-id or set-group-id, with which the next build could be turned into this one's user.
//
// # Order
//
// Of the rules that match, the last decides. Each part adds to the one before; the denial of set-id files follows all that
// allows writing (upstream's stands first, where the rules for the build directory and outputs come after it).
// Additional is last and can do anything: its author has to be trusted.
package darwinprofile
