package localstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// writePath is one way in which a store is changed. It starts from a store in which prepare was done, and may be
// repeated after it has failed anywhere.
type writePath struct {
	name    string
	prepare func(t testing.TB, s *Store)
	do      func(t testing.TB, s *Store) error
	// done tells whether the change is complete; nil: the store is just consistent.
	done func(t testing.TB, s *Store) bool
}

func writePaths() []writePath {
	text := func(method storepath.Method, content string, repair bool) func(testing.TB, *Store) error {
		return func(t testing.TB, s *Store) error {
			spec := DumpSpec{Name: "crash", Method: method, Algo: nixhash.SHA256, Repair: repair}
			_, err := s.AddDump(ctx, spec, strings.NewReader(content), AddOptions{})
			return err
		}
	}
	nothing := func(testing.TB, *Store) {}
	small := func(t testing.TB, s *Store) *pathinfo.Info { return narInfo(t, s, "crash", smallTree(t, "x")) }
	addSmall := func(t testing.TB, s *Store, repair bool) error {
		return s.AddNAR(ctx, small(t, s), bytes.NewReader(smallTree(t, "x")), AddOptions{Repair: repair})
	}
	isValid := func(want bool) func(t testing.TB, s *Store) bool {
		return func(t testing.TB, s *Store) bool {
			all, err := s.AllValidPaths(ctx)
			return err == nil && (len(all) == 1) == want
		}
	}
	return []writePath{
		{"AddDump in memory", nothing, text(storepath.MethodText, "hello", false), isValid(true)},
		{"AddDump staged", nothing, text(storepath.MethodFlat, strings.Repeat("long", 50_000), false), isValid(true)},
		{"AddDump repairing", func(t testing.TB, s *Store) { text(storepath.MethodText, "hello", false)(t, s) },
			text(storepath.MethodText, "hello", true), isValid(true)},
		{"AddNAR", nothing, func(t testing.TB, s *Store) error { return addSmall(t, s, false) }, isValid(true)},
		{"AddNAR repairing", func(t testing.TB, s *Store) { addSmall(t, s, false) },
			func(t testing.TB, s *Store) error { return addSmall(t, s, true) }, isValid(true)},
		{"Import", nothing, func(t testing.TB, s *Store) error {
			im := s.NewImport(AddOptions{})
			err := im.Add(ctx, small(t, s), bytes.NewReader(smallTree(t, "x")))
			return errors.Join(err, im.Flush(ctx), im.Close())
		}, isValid(true)},
		{"DeletePath", func(t testing.TB, s *Store) { addSmall(t, s, false) }, func(t testing.TB, s *Store) error {
			_, err := s.DeletePath(ctx, small(t, s).Path)
			return err
		}, isValid(false)},
		{"Register", func(t testing.TB, s *Store) {
			if err := s.Restore(ctx, s.RealPath(small(t, s).Path), bytes.NewReader(smallTree(t, "x"))); err != nil {
				t.Fatal(err)
			}
		}, func(t testing.TB, s *Store) error { return s.Register(ctx, []*pathinfo.Info{small(t, s)}) }, isValid(true)},
	}
}

const crashBuffer = 1000 // so that staging is used

var errCrash = errors.New("crash")

// TestCrash breaks off each change after each of its steps, opens the store again, finds it consistent, and repeats
// the change.
func TestCrash(t *testing.T) {
	for _, w := range writePaths() {
		t.Run(w.name, func(t *testing.T) {
			for stop := 0; ; stop++ {
				if !crashOnce(t, w, func(s *Store) bool { return failAt(t, w, s, stop) }) {
					if stop == 0 {
						t.Error("has no steps")
					}
					return
				}
			}
		})
	}
}

// failAt does the change with its step failing, and tells whether it came so far.
func failAt(t *testing.T, w writePath, s *Store, stop int) bool {
	n := 0
	s.opts.Step = func(string) error {
		if n++; n > stop {
			return errCrash
		}
		return nil
	}
	err := w.do(t, s)
	if n > stop && !errors.Is(err, errCrash) {
		t.Errorf("failed with %v", err)
	}
	return n > stop
}

// crashOnce tells what crash told: whether there was a step to break off at.
func crashOnce(t *testing.T, w writePath, crash func(s *Store) bool) bool {
	o := testOptions(t)
	o.NarBufferSize = crashBuffer
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	w.prepare(t, s)
	crashed := crash(s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if s, err = Open(ctx, o); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var found collectedLog
	if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true, Log: &found}); bad || err != nil {
		t.Errorf("after the crash: %v, %v: %q", bad, err, found.texts)
	}
	for _, text := range found.texts {
		if strings.Contains(text, "disappeared") {
			t.Errorf("after the crash: %s", text)
		}
	}
	if err := w.do(t, s); err != nil {
		t.Errorf("once more: %v", err)
	}
	if !w.done(t, s) {
		t.Error("is not done after it was repeated")
	}
	if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true}); bad || err != nil {
		t.Errorf("after it was repeated: %v, %v", bad, err)
	}
	return crashed
}

// Environment of the child that kills itself.
const (
	killWrite = "LOCALSTORE_TEST_KILL"
	killStep  = "LOCALSTORE_TEST_KILL_STEP"
	killDir   = "LOCALSTORE_TEST_KILL_DIR"
)

// TestKill does the same with a process that is killed.
func TestKill(t *testing.T) {
	if os.Getenv(killWrite) != "" {
		killMyself(t)
		return
	}
	writes := writePaths()
	if testing.Short() {
		writes = writes[:1] // a process for each step; TestCrash goes through all in this one
	}
	for i, w := range writes {
		t.Run(w.name, func(t *testing.T) {
			for stop := 0; ; stop++ {
				if !crashOnce(t, w, func(s *Store) bool { return killedAt(t, s, i, stop) }) {
					return
				}
			}
		})
	}
}

func killedAt(t *testing.T, s *Store, write, stop int) bool {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), killWrite+"="+strconv.Itoa(write+1), killStep+"="+strconv.Itoa(stop),
		killDir+"="+strings.TrimSuffix(string(s.Dir()), "/store"))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%v: %s", err, out)
	}
	return true
}

func killMyself(t *testing.T) {
	number, _ := strconv.Atoi(os.Getenv(killWrite))
	stop, _ := strconv.Atoi(os.Getenv(killStep))
	dir := os.Getenv(killDir)
	o := DefaultOptions()
	o.StoreDir, o.StateDir, o.LogDir = storepath.Dir(dir+"/store"), dir+"/var", dir+"/log"
	o.NarBufferSize, o.ReservedSpace = crashBuffer, 1<<12
	n := 0
	o.Step = func(string) error {
		if n++; n > stop {
			return fmt.Errorf("killed: %w", syscall.Kill(os.Getpid(), syscall.SIGKILL))
		}
		return nil
	}
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := writePaths()[number-1].do(t, s); err != nil {
		t.Fatal(err)
	}
}
