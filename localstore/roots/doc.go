// Package roots finds what keeps store paths alive.
//
// [Find] gives all [Roots]: store paths, each with labels that say who holds it. There are three kinds of roots, which
// collectors look for at different moments and which therefore can be had one by one:
//
//   - permanent ones, below the directories gcroots and profiles: links into the store, links to such links
//     elsewhere (indirect roots), and files named like a store path ([Permanent]);
//   - what running programs use, according to the system ([Runtime]);
//   - temporary ones, which processes write to files of the directory temproots for as long as they live ([Temporary]).
//
// Layouts, labels and texts are upstream's, release 2.34.8 (libstore/gc.cc, local-gc.cc).
//
// # Safety
//
// Below gcroots and profiles users write, and indirect roots lead to places that are theirs. Directories are walked
// through descriptors and without following links; a link's target is looked at with one call that follows none in
// its last component, and nothing there is ever opened. What permanently cannot be read is reported and skipped; any other
// failure ends the search, since a collector must not take a root that it failed to read for one that is gone.
package roots
