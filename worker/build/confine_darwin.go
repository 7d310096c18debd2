package build

import (
	"io/fs"
	"os"
	"path/filepath"

	"nixdaemon/sandbox"
	"nixdaemon/worker/settings"
)

// byProfile tells whether builders are isolated by a profile, instead of a root of their own.
const byProfile = true

// checkProfile refuses, before anything is done, what the profile of an isolated builder must not contain.
func (a *attempt) checkProfile() error {
	if a.set.Sandbox != settings.SandboxTrue {
		return nil
	}
	return checkDarwinProfile(a.j.options, a.dir.Print(a.j.drvPath))
}

// confine gives the builder its profile and architecture.
func (a *attempt) confine(spec *sandbox.Spec) error {
	b, err := a.darwinBuild()
	if err != nil {
		return err
	}
	spec.Darwin, err = b.sandbox(isDirectory)
	// Upstream's tests run in builds, whose profile does not allow another one.
	if err == nil && a.o.Getenv != nil && a.o.Getenv("_NIX_TEST_NO_SANDBOX") == "1" {
		spec.Darwin.Profile = nil
	}
	return err
}

func (a *attempt) darwinBuild() (*darwinBuild, error) {
	b := &darwinBuild{logViolations: a.set.DarwinLogSandboxViolations, network: !a.kind.IsSandboxed, options: a.j.options,
		platform: a.drv.Platform, dir: a.dir, buildDir: a.tmp.path, inputs: a.inputs}
	var err error
	if b.isolated, err = a.wantsSandbox(); err != nil {
		return nil, err
	}
	if b.tempDir, err = darwinTempDir(a.o.Getenv, filepath.EvalSymlinks); err != nil {
		return nil, err
	}
	if b.realBuildDir, err = filepath.EvalSymlinks(b.buildDir); err != nil {
		return nil, err
	}
	// The administrator's hook runs, and what the derivation must not ask for is refused, in any case (prepareSandbox).
	paths, err := a.pathsInSandbox()
	if err != nil || !b.isolated {
		return b, err
	}
	for _, o := range a.outputs {
		b.outputs = append(b.outputs, o.scratch)
	}
	for target, p := range paths {
		b.paths = append(b.paths, darwinPath{target: target, source: rooted(p.source), optional: p.optional})
	}
	return b, nil
}

func isDirectory(name string) (bool, error) {
	info, err := os.Lstat(name)
	return err == nil && info.Mode().Type() == fs.ModeDir, err
}
