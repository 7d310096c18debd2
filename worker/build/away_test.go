package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/protocol/derivation"
	"nixdaemon/worker/settings"
)

// newAway plays other machines for a store that is away: it is this machine's, but the scheduler does not know.
func newAway(t *testing.T) (m *abroad, logs string) {
	m = newAbroad(t, 1)
	logs = t.TempDir()
	near := m.w.sched
	m.w.sched = NewAway(m.w.store, &localstore.BuildLogs{Dir: logs}, m.w.options)
	t.Cleanup(func() {
		if err := m.w.sched.Close(context.Background()); err != nil {
			t.Error(err)
		}
		m.w.sched = near
	})
	return m, logs
}

func TestAway(t *testing.T) {
	m, logs := newAway(t)
	below := m.w.drv("below", "exit 1")
	top := m.w.drv("top", "exit 1", func(d *derivation.Derivation) {
		d.InputDrvs[below] = &derivation.InputOutputs{Outputs: []string{"out"}}
	})
	m.w.set(func(s *settings.Settings) { s.CompressBuildLog = false })
	m.end = func(ctx context.Context, n int, task Task) error {
		fmt.Fprintln(task.Output, "said abroad")
		// Nothing of the store is locked or made here.
		if locks, err := filepath.Glob(m.w.store.RealDir() + "/*.lock"); err != nil || len(locks) != 0 {
			t.Errorf("locks %q, %v", locks, err)
		}
		return nil
	}
	if got := m.w.read(m.w.mustBuild(top)); got != "made abroad: out" {
		t.Errorf("output: %s", got)
	}
	if len(m.built) != 2 {
		t.Errorf("built %q", m.built)
	}
	said, err := os.ReadFile(filepath.Join(logs, "drvs", top.Base()[:2], top.Base()[2:]))
	if err != nil || string(said) != "said abroad\n" {
		t.Errorf("log %q, %v", said, err)
	}
}

// TestAwayRefused is about what no machine builds: nothing is, here.
func TestAwayRefused(t *testing.T) {
	m, logs := newAway(t)
	drv := m.w.drv("none", "echo here > $out")
	const want = "Unable to build with a primary store that isn't a local store;"
	m.answer = func(int, Need) (Answer, error) { return Decline, nil }
	if got := m.w.mustFail(drv, derivation.StatusInputRejected); !strings.HasPrefix(got, want) {
		t.Errorf("declined: %s", got)
	}
	if need := m.needs[0]; need.Local || need.Willing {
		t.Errorf("need %+v", need)
	}
	m.end = func(context.Context, int, Task) error { return &RemoteFailure{ExitCode: 1} }
	m.answer = nil
	if got := m.w.mustFail(drv, derivation.StatusMiscFailure); !strings.Contains(got, "builder failed with exit code 1") {
		t.Errorf("failed: %s", got)
	}
	m.w.options.Remote = nil
	alone := NewAway(m.w.store, &localstore.BuildLogs{Dir: logs}, m.w.options)
	res, err := alone.BuildPathsWithResults(m.w.ctx, m.w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
	if err != nil || len(res) != 1 || res[0].Status != derivation.StatusInputRejected {
		t.Errorf("without machines: %v, %v", res, err)
	}
	if err := alone.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(m.w.store.RealPath(m.w.out(drv, "out"))); !os.IsNotExist(err) {
		t.Errorf("the output is there: %v", err)
	}
}
