package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// scratch is where all daemons have their stores.
//
// Stores stay until the end of the run: some file systems (ext4 without a
// journal) do not give the inodes of deleted files out again for minutes and
// look at all of them for each file that is made, so that whoever is measured
// after a store of 20,000 paths was deleted seems to be several times slower.
type scratch struct {
	dir string
	// client is a nix-instantiate of an upstream release; "" for none.
	client string
}

// newScratch looks for a client beside the daemons.
func newScratch(daemons []string) (*scratch, error) {
	dir, err := os.MkdirTemp(scratchParent(), "nixbench")
	if err != nil {
		return nil, err
	}
	// Build users have to reach their stores.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	s := &scratch{dir: dir}
	for _, d := range daemons {
		client := filepath.Join(filepath.Dir(d), "nix-instantiate")
		if _, err := os.Stat(client); err == nil {
			s.client = client
			break
		}
	}
	return s, nil
}

// scratchParent is where root's daemons accept build directories of build users: not below a directory that
// everybody can write to.
func scratchParent() string {
	const dir = "/var/cache"
	if os.Getenv("TMPDIR") == "" && os.Geteuid() == 0 {
		return dir
	}
	return ""
}

func (s *scratch) remove() {
	exec.Command("chmod", "-R", "u+w", s.dir).Run()
	os.RemoveAll(s.dir)
}

// large is the size of files that do not stay: few inodes, much room.
const large = 16 << 20

// dropLarge deletes large files, which lie directly in a store or its logs.
func dropLarge(dir string) {
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		if info, err := e.Info(); err == nil && info.Size() >= large {
			os.Remove(path)
		}
		return nil
	})
}
