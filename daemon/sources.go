package daemon

import (
	"os"

	"golang.org/x/sys/unix"

	"nixdaemon/daemon/status/meter"
)

// sourced is a backend that has more to tell than it calls observers for.
type sourced interface{ sources() meter.Sources }

var _ sourced = (*local)(nil)

// ask has the meter ask a backend, if that has something to tell.
func ask(m *meter.Meter, b backend) {
	if s, ok := b.(sourced); ok {
		m.Ask(s.sources())
	}
}

func (b *local) sources() meter.Sources {
	return meter.Sources{
		Builds: b.scheduler.Status, Fetching: b.subst.Fetching, Infos: b.opener.infos.Stats, Database: b.store.DatabaseStats,
		Collecting: func() bool { return b.collector.gc.Running() != nil },
		Disk:       func() (free, size uint64, err error) { return diskSpace(b.store.RealDir()) },
	}
}

// diskSpace tells how much there is on the file system that has path.
func diskSpace(path string) (free, size uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
