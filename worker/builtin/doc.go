// Package builtin carries out the builders that a derivation names instead of a program: builtin:fetchurl,
// builtin:buildenv and builtin:unpack-channel.
//
// A builtin is a [builtinjob.Job]. It never runs in the daemon: [Command] is how the daemon's own binary is started as a builder
// like any other, as the build user and in the build directory, within whatever sandbox the build has; there [Main]
// reads the job from [builtinjob.File] and does it. What it has to tell goes to standard error in the form that the reader
// of a builder's log understands, activities and warnings as "@nix" lines and the final error as text.
//
// # Trust
//
// Everything in a job but the settings is chosen by whoever wrote the derivation, and what is downloaded or unpacked by
// somebody else again. Archives are unpacked beneath a directory descriptor, one component at a time, without following
// links; certificates are verified against the job's bundle; nothing that came from outside is held in memory whole.
//
// # Texts
//
// Messages are those of upstream 2.34.8 (libstore/builtins, libstore/filetransfer.cc), colours included; the ones that
// upstream takes from libcurl are libcurl's for the same condition, as far as Go's network stack tells conditions apart.
package builtin
