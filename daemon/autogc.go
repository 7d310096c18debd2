package daemon

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/localstore/gc"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// autoGC makes space as a client's settings want it.
type autoGC struct{ *gc.Auto }

func limitsOf(s *settings.Settings) gc.Limits {
	return gc.Limits{
		MinFree: s.MinFree, MaxFree: s.MaxFree,
		Interval:    time.Duration(min(s.MinFreeCheckInterval, math.MaxInt64/uint64(time.Second))) * time.Second,
		KeepOutputs: s.KeepOutputs, KeepDerivations: s.KeepDerivations,
	}
}

// makeRoom waits until there is space.
func (a autoGC) makeRoom(ctx context.Context, sess *session.Session) error {
	return a.Wait(ctx, limitsOf(sess.Settings), sess.Log)
}

// during looks for space as long as something is made for a client.
func (a autoGC) during(sess *session.Session) (stop func()) {
	return a.Watch(limitsOf(sess.Settings), sess.Log)
}

// BuildPaths collects garbage meanwhile, if need be.
func (b builder) BuildPaths(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) error {
	defer b.auto.during(sess)()
	return b.Scheduler.BuildPaths(ctx, sess, paths, mode)
}

// BuildPathsWithResults collects garbage meanwhile, if need be.
func (b builder) BuildPathsWithResults(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) ([]derivation.KeyedBuildResult, error) {
	defer b.auto.during(sess)()
	return b.Scheduler.BuildPathsWithResults(ctx, sess, paths, mode)
}

// BuildDerivation collects garbage meanwhile, if need be.
func (b builder) BuildDerivation(ctx context.Context, sess *session.Session, drvPath storepath.Path, drv *derivation.BasicDerivation, mode derivation.BuildMode) (derivation.BuildResult, error) {
	defer b.auto.during(sess)()
	return b.Scheduler.BuildDerivation(ctx, sess, drvPath, drv, mode)
}

// EnsurePath collects garbage meanwhile, if need be.
func (b builder) EnsurePath(ctx context.Context, sess *session.Session, p storepath.Path) error {
	defer b.auto.during(sess)()
	return b.Scheduler.EnsurePath(ctx, sess, p)
}

// freeSpace tells how many bytes are free where the store's files are. Tests, upstream's and ours, name a file that has
// the number.
func freeSpace(realDir string) func() (uint64, error) {
	file := os.Getenv("_NIX_TEST_FREE_SPACE_FILE")
	if file == "" {
		return func() (uint64, error) { return gc.Available(realDir) }
	}
	return func() (uint64, error) {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read free space: %w", err)
		}
		return n, nil
	}
}

// logSink puts what is said to nobody in particular into the daemon's log.
type logSink struct {
	activity.Discard
	log zerolog.Logger
}

func sinkFor(log zerolog.Logger) activity.Sink { return logSink{log: log} }

// Message logs a message.
func (s logSink) Message(level activity.Level, text string) {
	s.log.WithLevel(severity(level)).Msg(text)
}

// syncPoint is where tests, upstream's and ours, make a collection wait: they name files whose ends it reads to.
func syncPoint(step string) error {
	variable := map[string]string{"locked": "_NIX_TEST_GC_SYNC_1", "roots": "_NIX_TEST_GC_SYNC_2"}[step]
	if variable == "" || os.Getenv(variable) == "" {
		return nil
	}
	_, err := os.ReadFile(os.Getenv(variable))
	return err
}
