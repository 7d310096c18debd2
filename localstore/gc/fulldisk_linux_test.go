package gc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore"
	"nixdaemon/protocol/storepath"
)

// smallDisk mounts a file system of some megabytes, in memory or as upstream's users have it.
func smallDisk(t *testing.T, kind string) string {
	t.Helper()
	dir := t.TempDir()
	switch kind {
	case "tmpfs":
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=32m,nr_inodes=3000"); err != nil {
			t.Skipf("cannot mount a small file system: %v", err)
		}
	case "ext4":
		image := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, 40<<20); err != nil {
			t.Fatal(err)
		}
		for _, argv := range [][]string{{"mkfs.ext4", "-q", "-N", "3000", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
			if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
				t.Skipf("cannot mount a small file system: %v: %v\n%s", argv, err, out)
			}
		}
	}
	t.Cleanup(func() {
		// The header of the database's index stays mapped as long as the process lives.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// exhaust takes the last byte, or the last inode, by files of nobody's.
func exhaust(t *testing.T, dir string, inodes bool) {
	t.Helper()
	for {
		f, err := os.CreateTemp(dir, "other")
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		for size := 1 << 20; size > 0 && !inodes; {
			_, err := f.Write(make([]byte, size))
			if errors.Is(err, unix.ENOSPC) {
				size /= 2
			} else if err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
		if !inodes {
			return
		}
	}
}

// TestCollectOnFullDisk demands that a collection makes space where there is none at all, and that the next could, too.
func TestCollectOnFullDisk(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		for _, inodes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s inodes=%v", kind, inodes), func(t *testing.T) {
				disk := smallDisk(t, kind)
				f := &fixture{t: t, opt: localstore.DefaultOptions(), dir: storepath.Dir(disk + "/store")}
				f.opt.StoreDir, f.opt.StateDir, f.opt.LogDir = f.dir, disk+"/var", disk+"/log"
				f.open()
				defer func() { f.Store.Close() }()
				s := chain(1000)
				f.fill(s)
				f.root("r", 9)
				f.collect(wholeStore(ReturnLive)) // as in any store that was ever used
				f.reopen()
				exhaust(t, disk, inodes)
				for round := range 2 {
					res, err := f.collector(nil).Collect(t.Context(), wholeStore(DeleteDead))
					if err != nil {
						t.Fatalf("with nothing left: %v", err)
					}
					if round == 0 && len(res.Paths) != 990 {
						t.Errorf("%d paths deleted", len(res.Paths))
					}
					f.check(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
					if st, err := os.Stat(f.opt.StateDir + "/db/reserved"); err != nil || round == 0 && st.Size() != f.opt.ReservedSpace {
						t.Errorf("nothing is reserved for the next: %v, %v", st, err)
					}
					exhaust(t, disk, inodes)
				}
			})
		}
	}
}
