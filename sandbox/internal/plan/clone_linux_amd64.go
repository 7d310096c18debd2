package plan

// cloneTail are the last arguments of clone: the address of the child's id, the thread area.
func cloneTail() []Arg { return []Arg{{Daemon: true}, null} }
