// Package localstoretest helps tests that need a store: [New] makes one in a temporary directory, [Load] fills it from
// a readable fixture, and [Run] is the contract that every way to a store must keep, be it the store itself or a
// client of a daemon that serves one.
package localstoretest
