package cachestore

import (
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nixhash"
)

// narCache keeps archives of the binary cache in a directory of this machine, by their hashes (parameter
// local-nar-cache). Upstream has listings beside them, without which it reads the archives (libutil/nar-cache.cc).
// What cannot be kept or read there is fetched again.
type narCache struct{ dir string } // "" for none

func (c narCache) file(h nixhash.Hash) string { return filepath.Join(c.dir, h.Nix32()+".nar") }

// get gives an archive of no more than limit bytes, nil if there is none. Whoever may write there has no say in what it
// holds.
func (c narCache) get(h nixhash.Hash, limit int64) []byte {
	if c.dir == "" {
		return nil
	}
	// Without O_NONBLOCK a pipe of that name would keep us waiting.
	f, err := os.OpenFile(c.file(h), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > limit {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(f, limit)) // it may be growing
	if err != nil || nixhash.Of(nixhash.SHA256, string(data)) != h {
		return nil
	}
	return data
}

// put keeps an archive. Nobody sees a part of it.
func (c narCache) put(h nixhash.Hash, data []byte) error {
	if c.dir == "" {
		return nil
	}
	if err := os.MkdirAll(c.dir, 0o777); err != nil {
		return err
	}
	f, err := os.CreateTemp(c.dir, ".tmp-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = firstOf(err, firstOf(f.Chmod(0o644), f.Close()))
	if err == nil {
		err = os.Rename(f.Name(), c.file(h))
	}
	if err != nil {
		return firstOf(err, os.Remove(f.Name()))
	}
	return nil
}
