package build

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/sandbox"
	"nixdaemon/worker/settings"
)

// prepare writes the builder's files and says how it is started.
func (a *attempt) prepare() (*sandbox.Spec, error) {
	env, err := a.environment()
	if err != nil {
		return nil, err
	}
	if err := a.nest(env); err != nil {
		return nil, err
	}
	for name, contents := range env.files {
		if err := a.writeFile(name, rewriteString(contents, a.rewrites), 0o644); err != nil {
			return nil, err
		}
	}
	user := a.sandboxUser()
	var isolation *sandbox.Isolation
	if a.isolated {
		// A user's other groups are for builds that see the machine, as upstream.
		if user != nil {
			user.Groups = nil
		}
		if err := a.isolate(); err != nil {
			return nil, err
		}
		if isolation, err = a.isolation(); err != nil {
			return nil, err
		}
	} else if err := unix.Access(homeDir, unix.F_OK); err == nil {
		return nil, errorf("home directory %s exists; please remove it to assure purity of builds without sandboxing", quotedPath(homeDir))
	}
	a.announce()
	if a.external != nil {
		return a.prepareExternal(env)
	}
	spec := &sandbox.Spec{
		Path: a.drv.Builder, Args: []string{path.Base(a.drv.Builder)}, Env: env.strings(a.rewrites), Dir: a.tmp.inside,
		User: user, AllowNewPrivileges: a.set.AllowNewPrivileges, FilterSyscalls: a.set.FilterSyscalls,
		Personality: a.personality(), Isolation: isolation, Cgroup: a.cgroupDir(),
	}
	for _, arg := range a.drv.Args {
		spec.Args = append(spec.Args, rewriteString(arg, a.rewrites))
	}
	if err := a.confine(spec); err != nil {
		return nil, err
	}
	if a.drv.IsBuiltin() {
		return spec, a.prepareBuiltin(spec)
	}
	return spec, nil
}

// announce logs what is about to be executed, for those who want to know that much.
func (a *attempt) announce() {
	if a.set.Verbosity < settings.LevelChatty {
		return
	}
	feed := &a.j.feed
	feed.Message(activity.Chatty, "executing builder '"+a.drv.Builder+"'")
	feed.Message(activity.Chatty, "using builder args '"+strings.Join(a.drv.Args, " ")+"'")
	if a.set.Verbosity < settings.LevelVomit {
		return
	}
	for name, value := range a.drv.Env {
		feed.Message(activity.Vomit, "setting builder env variable '"+name+"'='"+value+"'")
	}
}

// personality makes 32-bit builders see a 32-bit machine (linux/build/linux-derivation-builder.cc).
func (a *attempt) personality() sandbox.Personality {
	p := sandbox.Personality{UNAME26: a.set.ImpersonateLinux26}
	switch a.drv.Platform {
	case "i686-linux":
		p.Linux32 = a.set.System == "x86_64-linux"
	case "armv5tel-linux", "armv6l-linux", "armv7l-linux":
		p.Linux32 = true
	}
	return p
}

// limits notes why a builder had to be killed.
type limits struct {
	timedOut atomic.Int64 // after so many seconds, 0 for not
	tooLong  bool
}

// execute runs the builder. Its failure is the error; a.out has the times.
func (a *attempt) execute(spec *sandbox.Spec) error {
	a.out.startTime = a.now()
	p, startErr, err := a.startAndBegin(spec)
	if err != nil {
		return err
	}
	a.clock.exec = time.Now()
	a.nested.begin(p, spec)
	// The log's file is made while the builder gets under way: that takes as long as a small build.
	logFile, err := a.openLog()
	if err != nil {
		if p != nil {
			killErr := p.Kill()
			_, waitErr := a.endProcess(p, a.passOn(p, io.Discard, new(limits)))
			err = errors.Join(err, killErr, waitErr)
		}
		return err
	}
	lines := &logLines{sink: &a.j.feed, id: a.activity,
		messages: &jsonMessages{sink: &a.j.feed, id: a.activity, ids: a.s.ids}}
	var l limits
	res, err := a.runProcess(p, startErr, io.MultiWriter(lines, logFile), &l)
	a.clock.end = time.Now()
	a.nested.stop()
	lines.end()
	if logErr := logFile.Close(); logErr != nil {
		a.complain("write build log", logErr)
	}
	a.out.timesBuilt++
	a.out.stopTime = a.now()
	if err != nil {
		return err
	}
	user, system := res.CPUUser.Microseconds(), res.CPUSystem.Microseconds()
	a.out.cpuUser, a.out.cpuSystem = &user, &system
	return a.verdict(res, &l)
}

// startAndBegin starts the builder and tells everybody. A builder that cannot be executed has begun, too, unless it is
// an external one, for which it is the machine that is not as it should be.
func (a *attempt) startAndBegin(spec *sandbox.Spec) (p *sandbox.Process, startErr, err error) {
	if a.external == nil {
		a.begin()
		p, startErr = a.start(spec)
		return p, startErr, nil
	}
	if p, err = a.start(spec); err != nil {
		return nil, nil, a.notExecuted(err)
	}
	if err = a.awaitExternal(p); err == nil {
		a.begin()
	}
	return p, nil, err
}

func (a *attempt) openLog() (io.WriteCloser, error) {
	if !a.set.KeepBuildLog {
		return &buildLog{to: io.Discard, j: a.j}, nil
	}
	f, err := a.logs.Create(a.j.drvPath, a.set.CompressBuildLog)
	if err != nil {
		return nil, err
	}
	return &buildLog{to: f, close: f.Close, j: a.j}, nil
}

// buildLog takes what a builder prints: into the file that stays, and to those who read along.
type buildLog struct {
	to    io.Writer
	close func() error // nil for nothing to be closed
	j     *job
}

func (l *buildLog) Write(p []byte) (int, error) {
	l.j.logSize.Add(uint64(len(p)))
	l.j.transcript.Write(p)
	return l.to.Write(p)
}

func (l *buildLog) Close() error {
	if l.close == nil {
		return nil
	}
	return l.close()
}

// begin tells everybody that the build has begun.
func (a *attempt) begin() { a.announceBuild("", "") }

// announceBuild tells of a build on a machine; "" is this one.
func (a *attempt) announceBuild(where, machine string) {
	what := "building '%s'"
	switch a.j.mode {
	case derivation.BuildRepair:
		what = "repairing outputs of '%s'"
	case derivation.BuildCheck:
		what = "checking outputs of '%s'"
	}
	drv := a.dir.Print(a.j.drvPath)
	a.s.began(a.j, machine)
	a.activity = a.s.ids.Next()
	a.j.feed.Start(a.activity, activity.Info, activity.Build, strings.Replace(what, "%s", drv, 1)+where,
		[]activity.Field{activity.Text(drv), activity.Text(machine), activity.Number(1), activity.Number(1)}, 0)
	a.j.hasBegun()
}

// runProcess passes the builder's output on until there is no more, then ends what is left of it. A builder that
// cannot be executed has failed.
func (a *attempt) runProcess(p *sandbox.Process, startErr error, log io.Writer, l *limits) (sandbox.Result, error) {
	if startErr != nil {
		text := executionError(a.drv.Builder, startErr)
		if text == "" {
			return sandbox.Result{}, startErr
		}
		_, err := io.WriteString(log, text)
		return sandbox.Result{ExitCode: 1}, err
	}
	stop := a.watch(p, l)
	a.s.runs(a.j, p.Pid(), a.cgroupPath())
	readErr := a.passOn(p, log, l)
	a.s.runs(a.j, 0, "")
	stop()
	return a.endProcess(p, readErr)
}

// endProcess kills what is left: a builder may have closed its output and gone on.
func (a *attempt) endProcess(p *sandbox.Process, readErr error) (sandbox.Result, error) {
	killErr := p.Kill()
	res, err := p.Wait()
	a.stuck = a.stuck || err != nil
	return res, errors.Join(a.endCgroup(&res), err, killErr, readErr)
}

func (a *attempt) start(spec *sandbox.Spec) (*sandbox.Process, error) {
	if !path.IsAbs(spec.Path) {
		return nil, syscall.ENOENT
	}
	p, err := a.o.Launcher.Start(a.ctx, *spec)
	if err == nil || !a.isolated || executionError(a.drv.Builder, err) != "" {
		return p, err
	}
	if a.chroot != nil && a.chroot.reused && a.ctx.Err() == nil {
		// An input may have become another kind of file since.
		if err = a.renewChroot(); err == nil {
			a.root.assembly, a.root.assembled = nil, nil
			spec.Isolation.Entries = a.root.entries()
			return a.start(spec)
		}
	}
	if errors.Is(err, sandbox.ErrGroups) {
		err = errorf("setgroups failed. Set the require-drop-supplementary-groups option to false to skip this step.")
	}
	return nil, &traceError{"while setting up the build environment", err}
}

// executionError is what appears in the log when the builder cannot be executed: to the build that is as if the
// builder had failed. It is empty for other errors.
func executionError(builder string, err error) string {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok || !strings.HasPrefix(err.Error(), "start builder") && err != syscall.ENOENT {
		return ""
	}
	return errorLog(textf("executing '%s': %s", builder, errnoText(errno)).Coloured())
}

// errnoText is the C library's text of an error number.
func errnoText(errno syscall.Errno) string {
	switch errno {
	case syscall.ENOENT:
		return "No such file or directory"
	case syscall.EACCES:
		return "Permission denied"
	case syscall.ENOEXEC:
		return "Exec format error"
	case syscall.ENOTDIR:
		return "Not a directory"
	case syscall.ELOOP:
		return "Too many levels of symbolic links"
	case syscall.E2BIG:
		return "Argument list too long"
	case syscall.EISDIR:
		return "Is a directory"
	case syscall.ENAMETOOLONG:
		return "File name too long"
	}
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// watch kills the builder when its time is over. The returned function ends the watch.
func (a *attempt) watch(p *sandbox.Process, l *limits) (stop func()) {
	if a.set.Timeout <= 0 {
		return func() {}
	}
	timer := time.AfterFunc(a.set.Timeout.Duration(), func() {
		l.timedOut.CompareAndSwap(0, int64(a.set.Timeout))
		p.Kill()
	})
	return func() { timer.Stop() }
}

// passOn reads the builder's output to its end.
func (a *attempt) passOn(p *sandbox.Process, log io.Writer, l *limits) error {
	var silence *time.Timer
	if a.set.MaxSilentTime > 0 {
		silence = time.AfterFunc(a.set.MaxSilentTime.Duration(), func() {
			l.timedOut.CompareAndSwap(0, int64(a.set.MaxSilentTime))
			p.Kill()
		})
		defer silence.Stop()
	}
	output := p.Output()
	buf := make([]byte, 8<<10)
	var size uint64
	var writeErr error
	for {
		n, err := output.Read(buf)
		if n > 0 {
			if silence != nil {
				silence.Reset(a.set.MaxSilentTime.Duration())
			}
			size += uint64(n)
			if a.set.MaxBuildLogSize > 0 && size > a.set.MaxBuildLogSize && !l.tooLong {
				l.tooLong = true
				p.Kill()
			}
			if !l.tooLong && writeErr == nil {
				_, writeErr = log.Write(buf[:n])
			}
		}
		if err == io.EOF {
			return writeErr
		}
		if err != nil {
			return errors.Join(writeErr, fmt.Errorf("read output of builder: %w", err))
		}
	}
}

// verdict tells whether the builder has succeeded.
func (a *attempt) verdict(res sandbox.Result, l *limits) error {
	switch seconds := l.timedOut.Load(); {
	case a.ctx.Err() != nil:
		return a.ctx.Err()
	case l.tooLong:
		return a.logTooLong()
	case seconds > 0:
		return failuref(derivation.StatusTimedOut, "timed out after %s seconds", seconds)
	case res.ExitCode == 0:
		return nil
	}
	status := derivation.StatusPermanentFailure
	failure := &builderFailure{reason: statusText(res)}
	full := a.diskFull()
	if full {
		failure.after = "\nnote: build failure may have been caused by lack of free disk space"
	}
	if full || !a.kind.IsSandboxed {
		status = derivation.StatusTransientFailure
	}
	a.out.builder = failure
	return &Failure{Status: status, Msg: textf("builder for '%s' %s", a.dir.Print(a.j.drvPath), failure.reason)}
}

func (a *attempt) logTooLong() error {
	return failuref(derivation.StatusLogLimitExceeded, "%s killed after writing more than %s bytes of log output",
		"building derivation '"+a.dir.Print(a.j.drvPath)+"'", a.set.MaxBuildLogSize)
}

// diskFull guesses whether lack of space may have made a build fail.
func (a *attempt) diskFull() bool {
	const required = 8 << 20
	for _, dir := range []string{a.store.RealDir(), a.tmp.path} {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err == nil && uint64(st.Bavail)*uint64(st.Bsize) < required {
			return true
		}
	}
	return false
}
