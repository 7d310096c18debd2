package buildusers

// SlotSize is how many ids of a [Range] go to a build together, so that it can have as many.
const SlotSize = 65536
