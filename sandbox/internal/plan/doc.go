// Package plan turns the description of an isolated builder into the list of system calls that make it so.
//
// [Steps] is a pure function from an [Input] to an ordered list of [Step], each one system call with a name for errors.
// The order is the security property, so it is tested as text, without root. Package child executes the list in a
// cloned child of the daemon that does nothing else.
//
// # Order
//
// Namespaces first; then the builder's root is put together and everything outside of it is let go of for good
// (pivot_root, never chroot); then ids, privileges and what may be called are given up; the last step executes the
// builder. What follows from a builder's being hostile follows from this order: no step after the loss of the old root
// needs a path of the host, and no step before the last runs anything that the builder has prepared.
//
// # Where the user namespace comes in
//
// Creating a user namespace costs several times what all others cost together, so the caller keeps one for each
// build user and the child enters it. It carries no state of a build: it maps ids, and nobody has privileges in it.
//
// A root daemon makes everything with its own privileges and enters the user namespace just before it becomes the
// builder; so the builder's namespaces belong to root, and no privilege within its user namespace extends to them.
// With a range of ids the builder is to own its namespaces, and those are unshared again after entering.
// A daemon without privileges has to enter first, and to clone once more to be inside the process namespace.
package plan
