package compat

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/compat-tests/internal/cutdisk"
	"nixdaemon/compat-tests/internal/load"
)

// Environment of TestPowerCut: how long the load runs, in seconds, and how often the recording is cut.
const (
	powerSeconds = "NIXDAEMON_POWER_SECONDS"
	powerCuts    = "NIXDAEMON_POWER_CUTS"
	powerSeed    = "NIXDAEMON_POWER_SEED"

	// powerChild names the case that a child in a mount namespace of its own is to run.
	powerChild = "NIXDAEMON_TEST_POWER_CHILD"
)

// powerCase is a configuration and what it promises.
type powerCase struct {
	name, conf string
	// mount are options of the file system. With data=writeback it does, like several others, not see to it that the
	// contents of a file are on disk before its size is, or before later changes of directories.
	mount string
	// created says that the store is made during the recording; otherwise it has been there for a while.
	created bool
	// lag is how old an acknowledgement must be for it to survive.
	lag time.Duration
	// seconds is how long the load runs unless the environment says otherwise; afterwards the daemon is left alone for
	// the time of idle.
	seconds int
	idle    time.Duration
	// long is left to long runs, those with powerSeconds set.
	long bool
}

var powerCases = []powerCase{
	{name: "default", conf: "auto-optimise-store = true\n", mount: "data=writeback", lag: 10 * time.Second, seconds: 6, idle: 7 * time.Second},
	{name: "ordered", conf: "auto-optimise-store = true\n", lag: 10 * time.Second, idle: 7 * time.Second, long: true},
	{name: "created", created: true, mount: "data=writeback", lag: 10 * time.Second, seconds: 1},
	{name: "fsync", conf: "fsync-store-paths = true\nauto-optimise-store = true\n", mount: "data=writeback", seconds: 3},
}

// TestPowerCut records what the disk is asked to do while clients use the daemon, cuts the power at many moments, starts
// the daemon on what is left, and looks whether what it calls valid is intact and whether what it had promised is there:
// by default what was acknowledged ten seconds before, with fsync-store-paths everything.
//
// With NIXDAEMON_BINARY set to upstream's daemon it fails and tells what is lost there.
func TestPowerCut(t *testing.T) {
	if name := os.Getenv(powerChild); name != "" {
		i := slices.IndexFunc(powerCases, func(c powerCase) bool { return c.name == name })
		powerCuttings(t, powerCases[i])
		return
	}
	requireClients(t, referenceVersion)
	if err := cutdisk.Available(); err != nil {
		t.Skip("no disk whose power can be cut: ", err)
	}
	for _, c := range powerCases {
		t.Run(c.name, func(t *testing.T) {
			if c.long && os.Getenv(powerSeconds) == "" {
				t.Skip("not without ", powerSeconds)
			}
			t.Parallel()
			inNamespace(t, "TestPowerCut", powerChild+"="+c.name)
		})
	}
}

// inNamespace runs a test of this program in a mount namespace of its own, so that whatever it mounts goes with it.
func inNamespace(t *testing.T, test string, env ...string) {
	t.Helper()
	args := []string{"-test.run=^" + test + "$", "-test.count=1", "-test.timeout=24h"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), "NIXDAEMON_BINARY="+shared.daemon.path), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}
}

// numberFrom reads a number from the environment.
func numberFrom(t testing.TB, name string, fallback int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// trace is a recorded run.
type trace struct {
	load      *load.Load
	recording *cutdisk.Recording
	start     int // position when the load began
	ended     time.Time
	end       int // position when the power went for good
}

func powerCuttings(t *testing.T, c powerCase) {
	dir, err := os.MkdirTemp(os.Getenv("NIXDAEMON_COMPAT_TMP"), "nc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeTree(t, dir) })
	boot := newBootID(t, dir)
	boot(0)
	s, tr := recordLoad(t, c, dir)
	defer tr.recording.Close()
	luck := rand.New(rand.NewPCG(7, uint64(numberFrom(t, powerSeed, 1))))
	var bad, missing, damaged int
	cuts := moments(tr, numberFrom(t, powerCuts, 12), luck)
	for i, at := range cuts {
		loss := cutdisk.Loss(luck.IntN(3))
		image := filepath.Join(dir, "cut")
		if err := tr.recording.Cut(at, loss, luck, image); err != nil {
			t.Fatal(err)
		}
		boot(i + 1)
		f := afterCut(t, s, tr, c, image, at)
		if !f.OK() {
			bad, missing, damaged = bad+1, missing+len(f.Missing), damaged+len(f.Damaged)
			t.Errorf("power cut before event %d of %d, %v: %v", at, tr.end, loss, f)
		}
	}
	t.Logf("%s: %d events, %d promises, %v; %d cuts, %d of them bad: %d missing, %d damaged", c.name, tr.end,
		len(tr.load.Promises()), tr.load.Counts(), len(cuts), bad, missing, damaged)
}

// newBootID puts a file of ours in the place where the kernel tells its boot id, and gives what changes it.
func newBootID(t *testing.T, dir string) func(n int) {
	t.Helper()
	file := filepath.Join(dir, "boot_id")
	set := func(n int) {
		if err := os.WriteFile(file, fmt.Appendf(nil, "00000000-0000-4000-8000-%012d\n", n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set(0)
	if err := unix.Mount(file, "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	return set
}

func powerScratch(t *testing.T, c powerCase, root string) scratch {
	s := scratch{root: root}
	s.create(t)
	s.configure(t, "fsync-metadata = true\nmax-jobs = 2\n"+c.conf)
	return s
}

// recordLoad has clients use a daemon on a disk that is recorded, until the machine is as good as switched off.
func recordLoad(t *testing.T, c powerCase, dir string) (scratch, *trace) {
	disk, err := cutdisk.New(dir, 512<<20, c.mount)
	if err != nil {
		t.Fatal(err)
	}
	s := powerScratch(t, c, disk.Dir())
	tr := new(trace)
	tr.load = load.New(load.Options{
		Socket: s.socket(), StoreDir: s.path("store"), StateDir: s.path("var/nix"), Clients: 4, Deletes: true,
		Seed: uint64(numberFrom(t, powerSeed, 1)), Position: disk.Position,
		Builds: []string{"echo $name > $out", "mkdir $out; for i in 1 2 3; do echo $name $i > $out/$i; done; echo $dep > $out/dep"},
	})
	if !c.created {
		settle(t, s, tr.load)
	}
	tr.start = disk.Position()
	d := startDaemon(t, s, shared.daemon, daemonOptions{})
	seconds := numberFrom(t, powerSeconds, c.seconds)
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second)
	defer cancel()
	if err := tr.load.Run(ctx); err != nil {
		t.Error(err)
	}
	time.Sleep(c.idle)
	tr.end, tr.ended = disk.Position(), time.Now()
	d.kill()
	if err := s.awaitQuiet(); err != nil {
		t.Fatal(err)
	}
	if tr.recording, err = disk.Stop(); err != nil {
		t.Fatal(err)
	}
	return s, tr
}

// settle makes a store that has been in use for a while and was then shut down.
func settle(t *testing.T, s scratch, l *load.Load) {
	d := startDaemon(t, s, shared.daemon, daemonOptions{})
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := l.Run(ctx); err != nil {
		t.Error(err)
	}
	mustStop(t, d)
	dir, err := os.Open(s.root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		t.Fatal(err)
	}
}

// moments chooses where to cut: half of them just before a flush, when most is at stake.
func moments(tr *trace, n int, luck *rand.Rand) []int {
	var flushes []int
	for i := tr.start; i < tr.end; i++ {
		if tr.recording.Events[i].Flush() {
			flushes = append(flushes, i)
		}
	}
	cuts := []int{tr.end}
	for len(cuts) < n {
		if at := tr.start + luck.IntN(tr.end-tr.start); len(cuts)%2 == 0 || len(flushes) == 0 {
			cuts = append(cuts, at)
		} else {
			cuts = append(cuts, flushes[luck.IntN(len(flushes))])
		}
	}
	slices.Sort(cuts)
	return cuts
}

// afterCut starts the daemon on an image and tells what is wrong with its store.
func afterCut(t *testing.T, s scratch, tr *trace, c powerCase, image string, at int) *load.Findings {
	unmount, err := cutdisk.Mount(image, s.root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		// A process that is ending belongs to nobody any more, but has its files open for a moment.
		if err := poll(waitLimit, unmount); err != nil {
			t.Fatal(err)
		}
	}()
	s = powerScratch(t, c, s.root) // the newest part of it may be lost
	os.Remove(s.socket())
	d := startDaemon(t, s, shared.daemon, daemonOptions{})
	cutTime := tr.ended
	if at < tr.end {
		cutTime = tr.recording.Events[at].At
	}
	f, err := tr.load.Check(context.Background(), s.socket(), func(p load.Promise) bool {
		return p.Position <= at && (p.Released < 0 || p.Released > at) && cutTime.Sub(p.At) >= c.lag
	})
	if err != nil {
		d.kill()
		if err := s.awaitQuiet(); err != nil {
			t.Fatal(err)
		}
		return &load.Findings{Damaged: []string{"everything: " + err.Error()}}
	}
	defer mustStop(t, d)
	if f.OK() {
		goOn(t, s, uint64(at))
	}
	return f
}

// goOn uses the daemon for a moment.
func goOn(t *testing.T, s scratch, seed uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	after := load.New(load.Options{Socket: s.socket(), StoreDir: s.path("store"), StateDir: s.path("var/nix"), Clients: 2, Seed: seed + 1<<32})
	if err := after.Run(ctx); err != nil {
		t.Errorf("work does not go on: %v", err)
	}
}
