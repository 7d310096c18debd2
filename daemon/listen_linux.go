package daemon

import (
	"fmt"
	"net"
	"os"
)

// bindBeneath binds through /proc, whose links lead to open directories.
func bindBeneath(dir *os.File, base string) (net.Listener, error) {
	return listenKeeping(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), base))
}
