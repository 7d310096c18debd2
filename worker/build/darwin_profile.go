package build

import (
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/sandbox/darwinexec"
	"nixdaemon/sandbox/darwinprofile"
)

// darwinBuild is what the profile of a builder on macOS is made from.
type darwinBuild struct {
	// isolated is what the setting sandbox and the derivation come to. Other builders have a profile, too, which forbids
	// nothing but set-id files.
	isolated      bool
	logViolations bool
	// network is for builds whose result does not depend on it.
	network  bool
	options  *derivation.Options
	platform string

	dir             storepath.Dir
	buildDir        string // where the builder works, as it is told
	realBuildDir    string // without links
	tempDir         string // without links
	inputs, outputs []storepath.Path
	paths           []darwinPath
}

// darwinPath is a path of the host that a builder sees, and where it is to see it.
type darwinPath struct {
	target, source string
	optional       bool
}

// isTree tells whether a path of the host is a directory, without following links.
type isTree func(name string) (bool, error)

// sandbox is what the launcher needs to know (unix/build/darwin-derivation-builder.cc, setUser, execBuilder).
func (b *darwinBuild) sandbox(look isTree) (*sandbox.DarwinSandbox, error) {
	options := &darwinprofile.Options{Isolated: b.isolated, BuildDir: b.realBuildDir, TempDir: b.tempDir}
	res := &sandbox.DarwinSandbox{Profile: options, Architecture: darwinArchitecture(b.platform)}
	options.LocalNetwork = b.options.AllowLocalNetworking
	if !b.isolated {
		return res, nil
	}
	options.LogViolations = b.logViolations
	options.Network = b.network
	options.Additional = b.options.SandboxProfile
	options.StoreDir = string(b.dir)
	for _, p := range b.outputs {
		options.Outputs = append(options.Outputs, b.dir.Print(p))
	}
	slices.Sort(options.Outputs)
	var err error
	if options.HostPaths, err = b.hostPaths(look); err != nil {
		return nil, &traceError{"while setting up the build environment", err}
	}
	if options.Inputs, err = b.inputPaths(look); err != nil {
		return nil, &traceError{"while setting up the build environment", err}
	}
	return res, nil
}

// hostPaths are what the builder sees of the host, its own directory with the ones above among it.
func (b *darwinBuild) hostPaths(look isTree) ([]darwinprofile.Path, error) {
	paths := slices.Clone(b.paths)
	slices.SortStableFunc(paths, func(x, y darwinPath) int { return strings.Compare(x.target, y.target) })
	visible := []darwinprofile.Path{{Name: b.buildDir, Tree: true}, {Name: b.realBuildDir, Tree: true}}
	for _, p := range paths {
		if p.target != p.source {
			return nil, errorf("can't map %s to %s: mismatched impure paths not supported on Darwin", quotedPath(p.target), quotedPath(p.source))
		}
		tree, err := look(p.target)
		if p.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, noAttributes(p.target, err)
		}
		visible = append(visible, darwinprofile.Path{Name: path.Clean(p.target), Tree: tree})
	}
	return visible, nil
}

func (b *darwinBuild) inputPaths(look isTree) ([]darwinprofile.Path, error) {
	visible := make([]darwinprofile.Path, len(b.inputs))
	for i, p := range b.inputs {
		name := b.dir.Print(p)
		tree, err := look(name)
		if err != nil {
			return nil, noAttributes(name, err)
		}
		visible[i] = darwinprofile.Path{Name: name, Tree: tree}
	}
	return visible, nil
}

// noAttributes is upstream's text, without the quote that it forgets to close.
func noAttributes(name string, err error) error {
	return errorf("getting attributes of required path '%s: %s", name, plain(causeText(err)))
}

// darwinArchitecture is what runs a derivation's platform. Builtin builders and others run as what the machine is.
func darwinArchitecture(platform string) darwinexec.Architecture {
	switch platform {
	case "aarch64-darwin":
		return darwinexec.ARM64
	case "x86_64-darwin":
		return darwinexec.X8664
	}
	return darwinexec.Any
}

// checkDarwinProfile refuses text of a derivation in a profile that it must not weaken. It is for sandbox = true.
func checkDarwinProfile(options *derivation.Options, drvPath string) error {
	if options.SandboxProfile == "" {
		return nil
	}
	return errorf("derivation '%s' specifies a sandbox profile, but this is only allowed when 'sandbox' is 'relaxed'", drvPath)
}

// darwinTempDir is where programs put temporary files whatever they are told, without links: /tmp is one.
func darwinTempDir(getenv func(string) string, resolve func(string) (string, error)) (string, error) {
	dir := "/tmp"
	if getenv != nil {
		if set := getenv("TMPDIR"); set != "" {
			dir = set
		}
	}
	real, err := resolve(dir)
	return filepath.Clean(real), err
}

// causeText is the C library's text of what went wrong below a path.
func causeText(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errnoText(errno)
	}
	return err.Error()
}
