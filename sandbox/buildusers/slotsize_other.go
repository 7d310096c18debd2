//go:build !linux

package buildusers

// SlotSize is how many ids of a [Range] go to a build together: elsewhere than on Linux no build can use more than one.
const SlotSize = 1
