package build

import "fmt"

// address is how a socket in the build directory is reached to be bound. Through /proc, whose links lead to open
// directories, the name fits whatever the directory is called.
func (d *buildDir) address(name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", d.fd, name) }
