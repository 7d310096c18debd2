// Package twosum feeds two SHA-256 digests at once. The instructions that processors have for SHA-256 wait for one
// another: each round needs the result of the one before, and takes longer than the processor needs to begin the next
// instruction. The rounds of a second digest fill these gaps, so that two cost little more than one.
//
// [Write] is for two digests of crypto/sha256, whose state it takes out and puts back. Where the processor or the
// platform has no such instructions, or the digests are others, it writes to one after the other.
package twosum
