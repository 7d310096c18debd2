package build

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/wire"
	"nixdaemon/sandbox"
	"nixdaemon/worker/settings"
)

// externalBuildDir is what a derivation that is built by an external builder calls its build directory, wherever that
// is; externalJob is the name of the file that tells the builder what to do.
const (
	externalBuildDir = "/build"
	externalJob      = "build.json"
)

// externalBuilder is the first program of the setting external-builders for a platform; nil if there is none. It is
// preferred to building here, and nobody asks whether this machine has the platform and the features.
func externalBuilder(s *settings.Settings, platform string) *settings.ExternalBuilder {
	i := slices.IndexFunc(s.ExternalBuilders, func(b settings.ExternalBuilder) bool { return slices.Contains(b.Systems, platform) })
	if i < 0 {
		return nil
	}
	return &s.ExternalBuilders[i]
}

// checkExternal refuses what external builders cannot do.
func (a *attempt) checkExternal() error {
	if err := a.set.ExperimentalFeatures.Require(settings.ExternalBuildersFeature); err != nil {
		return err
	}
	features := a.j.options.RequiredSystemFeatures
	switch {
	case slices.Contains(features, "uid-range"):
		return errorf("feature 'uid-range' is not supported on this platform")
	case slices.Contains(features, "recursive-nix"):
		return errorf("'recursive-nix' is not supported yet by external derivation builders")
	}
	return nil
}

// externalTask is the file's contents: everything that the program needs to carry out the derivation
// (unix/build/external-derivation-builder.cc). The fields are in the order of their names, as upstream writes them.
type externalTask struct {
	Args            []string          `json:"args"`
	Builder         string            `json:"builder"`
	Env             map[string]string `json:"env"`
	InputPaths      []string          `json:"inputPaths"`
	Outputs         map[string]string `json:"outputs"`
	RealStoreDir    string            `json:"realStoreDir"`
	StoreDir        string            `json:"storeDir"`
	System          string            `json:"system"`
	TmpDir          string            `json:"tmpDir"`
	TmpDirInSandbox string            `json:"tmpDirInSandbox"`
	TopTmpDir       string            `json:"topTmpDir"`
	Version         int               `json:"version"`
}

func (a *attempt) externalTask(env *environment) *externalTask {
	task := &externalTask{
		Version: 1, Builder: a.drv.Builder, Args: make([]string, 0, len(a.drv.Args)), Env: make(map[string]string, len(env.vars)),
		TopTmpDir: a.tmp.top, TmpDir: a.tmp.path, TmpDirInSandbox: a.tmp.inside,
		StoreDir: string(a.dir), RealStoreDir: a.store.RealDir(), System: a.drv.Platform,
		InputPaths: make([]string, 0, len(a.inputs)), Outputs: make(map[string]string, len(a.outputs)),
	}
	for _, arg := range a.drv.Args {
		task.Args = append(task.Args, rewriteString(arg, a.rewrites))
	}
	for name, value := range env.vars {
		task.Env[name] = rewriteString(value, a.rewrites)
	}
	for _, p := range a.inputs {
		task.InputPaths = append(task.InputPaths, a.dir.Print(p))
	}
	for name, o := range a.outputs {
		task.Outputs[name] = a.dir.Print(o.scratch)
	}
	return task
}

// prepareExternal writes the task and says how the program is started: with the daemon's environment and, since the
// program is the administrator's and isolates the builder by itself, nothing that restrains it but its user.
func (a *attempt) prepareExternal(env *environment) (*sandbox.Spec, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a.externalTask(env)); err != nil {
		return nil, err
	}
	if err := a.writeTopFile(externalJob, bytes.TrimRight(text.Bytes(), "\n")); err != nil {
		return nil, err
	}
	program := a.external.Program
	args := append([]string{program}, a.external.Args...)
	return &sandbox.Spec{Path: program, Args: append(args, a.tmp.top+"/"+externalJob), Env: os.Environ(), Dir: a.tmp.path,
		User: a.sandboxUser(), AllowNewPrivileges: true, Keyrings: true, Cgroup: a.cgroupDir()}, nil
}

// writeTopFile makes a file above the build directory, then gives all that is there to the builder.
func (a *attempt) writeTopFile(name string, contents []byte) error {
	top, err := unix.Open(a.tmp.top, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open build directory '%s': %w", a.tmp.top, err)
	}
	defer unix.Close(top)
	fd, err := unix.Openat(top, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("creating file %s: %w", quotedPath(a.tmp.top+"/"+name), err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(contents)
	if err = errors.Join(err, f.Close()); err != nil || a.user == nil {
		return err
	}
	uid, gid := a.owner()
	if err := unix.Fchown(top, uid, gid); err != nil {
		return fmt.Errorf("cannot change ownership of %s: %w", quotedPath(a.tmp.top), err)
	}
	return nil
}

// awaitExternal waits until the program says that the builder's world is set up: by a line that begins with the byte 2.
// What it says before is for those who look for errors.
func (a *attempt) awaitExternal(p *sandbox.Process) error {
	said, told, err := readHandshake(p.Output())
	if err == nil && told == nil {
		for _, line := range said {
			a.j.feed.Message(activity.Debug, "sandbox setup: "+line)
		}
		return nil
	}
	killErr := p.Kill()
	_, readErr := io.Copy(io.Discard, p.Output())
	res, waitErr := a.endProcess(p, errors.Join(killErr, readErr))
	if a.ctx.Err() != nil {
		return a.ctx.Err()
	}
	if waitErr != nil {
		return waitErr
	}
	if told != nil {
		return &traceError{"while setting up the build environment", told}
	}
	status := "succeeded"
	if res.Signal != 0 || res.ExitCode != 0 {
		status = statusText(res)
	}
	return &traceError{fmt.Sprintf("while waiting for the build environment for '%s' to initialize (%s, previous messages: %s)",
		a.dir.Print(a.j.drvPath), status, strings.Join(said, "|")), err}
}

// mostHandshake bounds what a program may say before it is ready: what it has to tell of a setup fits many times.
const mostHandshake = 64 << 10

// readHandshake reads lines up to the one that says that all is well, byte by byte: what follows is the builder's. After
// one that begins with the byte 1 comes an error, which is told.
func readHandshake(r io.Reader) (said []string, told, err error) {
	var line []byte
	char := make([]byte, 1)
	for range mostHandshake {
		n, err := r.Read(char)
		switch {
		case n == 0 && err == io.EOF:
			return said, nil, errors.New("unexpected EOF reading a line")
		case n == 0 && err != nil:
			return said, nil, err
		case n == 0:
		case char[0] != '\n':
			line = append(line, char[0])
		case len(line) > 0 && line[0] == 2:
			return said, nil, nil
		case len(line) > 0 && line[0] == 1:
			told, err = readToldError(wire.NewReader(io.LimitReader(r, mostHandshake)))
			return said, told, err
		default:
			said = append(said, string(line))
			line = line[:0]
		}
	}
	return nil, nil, fmt.Errorf("the external builder has not said after %d bytes that it is ready", mostHandshake)
}

// readToldError reads an error as upstream's processes pass it on to one another (libutil/serialise.cc, readError).
func readToldError(r *wire.Reader) (told, err error) {
	if kind, err := r.String(mostHandshake); err != nil || kind != "Error" {
		return nil, cmp.Or(err, fmt.Errorf("the external builder's error is of the unknown kind '%s'", kind))
	}
	if _, err := r.Uint64(); err != nil { // level
		return nil, err
	}
	if _, err := r.String(mostHandshake); err != nil { // once a name
		return nil, err
	}
	msg, err := r.String(mostHandshake)
	if err != nil {
		return nil, err
	}
	if err := readNoPosition(r); err != nil {
		return nil, err
	}
	count, err := r.Count(mostHandshake / 16)
	if err != nil {
		return nil, err
	}
	traces := make([]string, count)
	for i := range traces {
		if err := readNoPosition(r); err != nil {
			return nil, err
		}
		if traces[i], err = r.String(mostHandshake); err != nil {
			return nil, err
		}
	}
	told = errorf("%s", plain(msg))
	for _, trace := range slices.Backward(traces) {
		told = &traceError{trace, told}
	}
	return told, nil
}

func readNoPosition(r *wire.Reader) error {
	position, err := r.Uint64()
	if err == nil && position != 0 {
		err = errors.New("the external builder's error has a position")
	}
	return err
}

// notExecuted is the error of a program that cannot be started.
func (a *attempt) notExecuted(err error) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return err
	}
	return &traceError{"while setting up the build environment", errorf("executing %s: %s", quotedPath(a.external.Program), errnoText(errno))}
}

// unableToStart is the end of a request all of whose derivations wait for a slot that it has forbidden: an external
// builder is preferred to saying so at once, as for other derivations.
func (d *drvGoal) unableToStart() error {
	s := d.r.sess.Settings
	if s.MaxJobs > 0 || externalBuilder(s, d.drv.Platform) == nil {
		return nil
	}
	why := "either increase '--max-jobs' or enable remote builds."
	if d.r.s.remote != nil && d.r.s.remote.Configured(s) {
		why = "remote machines may not have all required system features."
	}
	return errorf("Unable to start any build; %s\n\nFor more information run 'man nix.conf' and search for '/machines'.", plain(why))
}
