package builtin

import (
	"context"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"nixdaemon/worker/builtin/builtinjob"
)

// marker is the argument by which the daemon's binary knows that it is to be a builtin builder.
const marker = "__builtin-builder"

// Command gives the argument vector that makes the daemon's own binary, at the absolute path self, run the builtin
// called name (without "builtin:"). The program to execute is the first element. There is one for unknown names too:
// they fail in the log of the build, as upstream's do.
func Command(self, name string) []string { return []string{self, marker, name} }

// Invoked tells whether the arguments of this process, os.Args, come from [Command]. It is for the first line of main:
// a builtin must not start anything else.
func Invoked(args []string) bool { return len(args) == 3 && args[1] == marker }

// Main runs the builtin that args name, with the job in [builtinjob.File] of the working directory, and returns the exit
// status. It writes to standard error alone.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// As in upstream's processes: modes of what is made do not depend on who started the daemon.
	syscall.Umask(0o022)
	return run(ctx, ".", args[2], &builder{getenv: takeEnv()}, os.Stderr)
}

// takeEnv removes the environment and returns how to look at it. Parts of it are the derivation's, and a derivation has
// no business with the knobs of the Go runtime and libraries.
func takeEnv() func(name string) string {
	vars := make(map[string]string)
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		vars[name] = value
	}
	os.Clearenv()
	return func(name string) string { return vars[name] }
}

// run does the job in dir with what b has of the surroundings.
func run(ctx context.Context, dir, name string, b *builder, stderr io.Writer) int {
	var err error
	if b.job, err = readJob(dir); err == nil {
		b.log = &logger{w: stderr, verbosity: b.job.Verbosity}
		err = b.build(ctx, name)
	}
	if err == nil {
		return 0
	}
	// Nobody is left to tell if this fails.
	_, _ = io.WriteString(stderr, errorLog(err)+"\n")
	return 1
}

// builder does one job.
type builder struct {
	job    *builtinjob.Job
	log    *logger
	getenv func(string) string // the process's own environment, for proxies
	// pause waits before another attempt; nil means to sleep.
	pause func(ctx context.Context, d time.Duration) error
}

func (b *builder) build(ctx context.Context, name string) error {
	switch name {
	case "fetchurl":
		return b.fetchurl(ctx)
	case "buildenv":
		return b.buildenv(ctx)
	case "unpack-channel":
		return b.unpackChannel(ctx)
	}
	return failf("unsupported builtin builder '%s'", name)
}

// attribute is a variable that the derivation has to have.
func (b *builder) attribute(name string) (string, error) {
	value, ok := b.job.Env[name]
	if !ok {
		return "", failf("attribute '%s' missing", name)
	}
	if strings.IndexByte(value, 0) >= 0 {
		return "", failf("attribute '%s' contains a null byte", name)
	}
	return value, nil
}

// output is where the output called out is to be made.
func (b *builder) output() (string, error) {
	out, ok := b.job.Outputs["out"]
	if !ok || !strings.HasPrefix(out, "/") {
		return "", failf("'%s' requires an 'out' output", plain("builtin:"+b.job.Name))
	}
	return out, nil
}
