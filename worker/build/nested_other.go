//go:build !linux

package build

// address is how a socket in the build directory is reached to be bound.
func (d *buildDir) address(name string) string { return d.path + "/" + name }
