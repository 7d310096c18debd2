package localstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// AddIndirectRoot registers a link somewhere on disk as a root for as long as it leads into the store: by a
// link to it in gcroots/auto that is named by the hash of where it is.
func (s *Store) AddIndirectRoot(_ context.Context, link string) error {
	name := nixhash.Of(nixhash.SHA1, link).Nix32()
	return makeSymlink(filepath.Join(s.opts.rootsDir(), "auto", name), link)
}

// AddPermRoot makes a link at rootPath to a store path and registers it as a root. It gives the place, made canonical.
// It does not replace what is no link into the store.
func (s *Store) AddPermRoot(ctx context.Context, p storepath.Path, rootPath string) (string, error) {
	root := path.Clean(rootPath)
	if s.inStore(root) {
		return "", fmt.Errorf("creating a garbage collector root (\"%s\") in the Nix store is forbidden "+
			"(are you running nix-build inside the store?)", root)
	}
	// From here until the link counts.
	temp := s.NewTempRoots()
	defer temp.Close()
	if err := temp.Add(ctx, p); err != nil {
		return "", err
	}
	if _, err := os.Lstat(root); err == nil {
		target, err := os.Readlink(root)
		if err != nil || !s.inStore(target) {
			return "", fmt.Errorf("cannot create symlink \"%s\"; already exists", root)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("getting status of \"%s\": %w", root, errors.Unwrap(err))
	}
	if err := makeSymlink(root, s.opts.StoreDir.Print(p)); err != nil {
		return "", err
	}
	return root, s.AddIndirectRoot(ctx, root)
}

func (s *Store) inStore(path string) bool {
	return strings.HasPrefix(path, string(s.opts.StoreDir)+"/")
}

// makeSymlink makes or replaces a link in one step.
func makeSymlink(link, target string) error {
	if err := mkdirAll(filepath.Dir(link)); err != nil {
		return err
	}
	temp := fmt.Sprintf("%s.tmp-%d-%d", link, os.Getpid(), rand.Uint32())
	if err := os.Symlink(target, temp); err != nil {
		return fmt.Errorf("creating symlink from \"%s\" to \"%s\": %w", temp, target, errors.Unwrap(err))
	}
	if err := os.Rename(temp, link); err != nil {
		return errors.Join(fmt.Errorf("renaming \"%s\" to \"%s\": %w", temp, link, errors.Unwrap(err)), os.Remove(temp))
	}
	return nil
}
