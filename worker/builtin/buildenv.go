package builtin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxPropagated bounds the list of packages that a package brings along.
const maxPropagated = 16 << 20

// firstPropagated is the priority of the first package that was not asked for: they all lose against those that were.
const firstPropagated = 1000

// unlinked are the ends of file names that no user environment shows: useless there, or the same in many packages.
var unlinked = []string{"/propagated-build-inputs", "/nix-support", "/perllocal.pod", "/info/dir", "/log", "/manifest.nix",
	"/manifest.json"}

// buildenv makes a user environment: a tree of links to the files of packages (libstore/builtins/buildenv.cc).
func (b *builder) buildenv(ctx context.Context) error {
	out, err := b.output()
	if err != nil {
		return err
	}
	if err := makeDir(out); err != nil {
		return err
	}
	derivations, err := b.attribute("derivations")
	if err != nil {
		return err
	}
	pkgs, err := parsePackages(derivations)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(out)
	if err != nil {
		return err
	}
	defer root.Close()
	p := &profile{ctx: ctx, log: b.log, priorities: make(map[string]int), done: make(map[string]bool),
		postponed: make(map[string]bool)}
	if err := p.addAll(pkgs, forest{root, out}); err != nil {
		return err
	}
	b.log.debug(fmt.Sprintf("created %d symlinks in user environment", p.links))
	manifest, err := b.attribute("manifest")
	if err != nil {
		return err
	}
	return forest{root, out}.link(manifest, "manifest.nix")
}

// makeDir makes a directory unless there is one.
func makeDir(path string) error {
	if err := os.MkdirAll(path, 0o777); err != nil {
		return sysFailf(err, "creating directory %s", quoted(path))
	}
	return nil
}

// profile is a user environment that is being made.
type profile struct {
	ctx        context.Context // of the one call that makes it
	log        *logger
	priorities map[string]int // of the package that each link leads to, by the link's name
	done       map[string]bool
	postponed  map[string]bool
	links      int
}

// forest is a directory of links.
type forest struct {
	dir  *os.Root
	path string
}

func (f forest) link(target, name string) error {
	if err := f.dir.Symlink(target, name); err != nil {
		return sysFailf(err, "creating symlink %s -> %s", quoted(filepath.Join(f.path, name)), quoted(target))
	}
	return nil
}

func (p *profile) addAll(pkgs []pkg, out forest) error {
	sortPackages(pkgs)
	for _, pkg := range pkgs {
		if pkg.active {
			if err := p.add(pkg.path, pkg.priority, out); err != nil {
				return err
			}
		}
	}
	priority := firstPropagated
	for len(p.postponed) > 0 {
		paths := slices.SortedFunc(maps.Keys(p.postponed), comparePaths)
		clear(p.postponed)
		for _, path := range paths {
			if err := p.add(path, priority, out); err != nil {
				return err
			}
			priority++
		}
	}
	return nil
}

// add links the files of one package and notes what it brings along.
func (p *profile) add(path string, priority int, out forest) error {
	if p.done[path] {
		return nil
	}
	p.done[path] = true
	if err := p.linkTree(path, out, priority); err != nil {
		return err
	}
	propagated, err := readPropagated(path + "/nix-support/propagated-user-env-packages")
	if err != nil {
		return err
	}
	for _, more := range propagated {
		if !p.done[more] {
			p.postponed[more] = true
		}
	}
	return nil
}

func readPropagated(name string) ([]string, error) {
	f, err := os.Open(name)
	if isNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, sysFailf(err, "opening file %s", quoted(name))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPropagated+1))
	if err != nil {
		return nil, sysFailf(err, "reading file %s", quoted(name))
	}
	if len(text) > maxPropagated {
		return nil, fmt.Errorf("read '%s': larger than %d bytes", name, maxPropagated)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == ' ' || r == '\n' }), nil
}

// linkTree links everything in the directory src. It goes in the order of names, so that the same collision is reported
// each time.
func (p *profile) linkTree(src string, dst forest, priority int) error {
	entries, err := os.ReadDir(src)
	if errors.Is(err, unix.ENOTDIR) {
		p.log.warn("not including " + `"` + src + `"` + " in the user environment because it's not a directory")
		return nil
	}
	if err != nil {
		return sysFailf(err, "cannot read directory %s", quoted(src))
	}
	for _, entry := range entries {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if err := p.linkEntry(src, dst, entry.Name(), priority); err != nil {
			return err
		}
	}
	return nil
}

func (p *profile) linkEntry(srcDir string, dst forest, name string, priority int) error {
	src, path := joinPath(srcDir, name), joinPath(dst.path, name)
	info, err := os.Stat(src)
	if isNotExist(err) {
		p.log.warn("skipping dangling symlink '" + path + "'")
		return nil
	}
	if err != nil {
		return sysFailf(err, "getting status of %s", quoted(src))
	}
	if slices.ContainsFunc(unlinked, func(end string) bool { return strings.HasSuffix(src, end) }) {
		return nil
	}
	replace := p.replaceFile
	if info.IsDir() {
		replace = p.mergeDir
	}
	if done, err := replace(src, dst, name, priority); done || err != nil {
		return err
	}
	if err := dst.link(src, name); err != nil {
		return err
	}
	p.priorities[path] = priority
	p.links++
	return nil
}

// joinPath joins as std::filesystem::path does, which cleans nothing.
func joinPath(dir, name string) string { return strings.TrimSuffix(dir, "/") + "/" + name }

// mergeDir adds the directory src to what already has its name. It says false if there is no such thing.
func (p *profile) mergeDir(src string, dst forest, name string, priority int) (done bool, err error) {
	path := joinPath(dst.path, name)
	info, err := lstat(dst, name)
	if info == nil || err != nil {
		return false, err
	}
	if info.IsDir() {
		return true, p.within(dst, name, func(sub forest) error { return p.linkTree(src, sub, priority) })
	}
	if info.Mode().Type() != fs.ModeSymlink {
		return false, nil
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false, sysFailf(err, "reading symbolic link %s", quoted(path))
	}
	if info, err := os.Lstat(target); err != nil {
		return false, sysFailf(err, "getting status of %s", quoted(target))
	} else if !info.IsDir() {
		return false, failf("collision between %s and non-directory %s", quoted(src), quoted(target))
	}
	// The link becomes a directory with links to all that it led to.
	if err := dst.dir.Remove(name); err != nil {
		return false, err
	}
	if err := dst.dir.Mkdir(name, 0o755); err != nil {
		return false, sysFailf(err, "creating directory '%s'", path)
	}
	return true, p.within(dst, name, func(sub forest) error {
		if err := p.linkTree(target, sub, p.priorities[path]); err != nil {
			return err
		}
		return p.linkTree(src, sub, priority)
	})
}

func (p *profile) within(dst forest, name string, do func(forest) error) error {
	root, err := dst.dir.OpenRoot(name)
	if err != nil {
		return err
	}
	defer root.Close()
	return do(forest{root, joinPath(dst.path, name)})
}

// replaceFile makes room for the file src, if it may. It says true if what is there stays.
func (p *profile) replaceFile(src string, dst forest, name string, priority int) (done bool, err error) {
	path := joinPath(dst.path, name)
	info, err := lstat(dst, name)
	if info == nil || err != nil {
		return false, err
	}
	switch previous := p.priorities[path]; {
	case info.IsDir():
		return false, failf("collision between non-directory '%s' and directory '%s'", src, path)
	case info.Mode().Type() != fs.ModeSymlink:
		return false, nil
	case previous == priority:
		other, err := dst.dir.Readlink(name)
		if err != nil {
			return false, sysFailf(err, "reading symbolic link %s", quoted(path))
		}
		return false, failf("Unable to build profile. There is a conflict for the following files:\n\n  %s\n  %s",
			quoted(other), quoted(src))
	case previous < priority:
		return true, nil
	}
	return false, dst.dir.Remove(name)
}

// lstat is nil for what does not exist.
func lstat(dst forest, name string) (fs.FileInfo, error) {
	info, err := dst.dir.Lstat(name)
	if isNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, sysFailf(err, "getting status of %s", quoted(joinPath(dst.path, name)))
	}
	return info, nil
}
