//go:build linux && !amd64

package plan

// cloneTail are the last arguments of clone: the thread area, the address of the child's id.
func cloneTail() []Arg { return []Arg{null, {Daemon: true}} }
