package compat

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/compat-tests/internal/load"
	nixclient "nixdaemon/protocol/client"
	"nixdaemon/protocol/storepath"
)

// killCount is the environment variable of how often TestKills kills in each configuration; without it a few seconds.
const killCount = "NIXDAEMON_KILLS"

// fewKills is how many are enough to see that it works.
const fewKills = 50

// checkEvery is after how many kills everything is looked at.
const checkEvery = 250

// TestKills kills the daemon at random moments, and now and then one of its builders, while clients of ours and real ones
// add, build, collect, optimise and repair, and upstream's optimiser and collector work on the store, too. Whatever was
// acknowledged must be valid and intact afterwards, nothing may be stuck, and work must go on.
func TestKills(t *testing.T) {
	c := requireClients(t, referenceVersion)[0]
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		k := newKiller(t, c, "auto-optimise-store = true\n", false)
		k.run(numberFrom(t, killCount, fewKills))
	})
	t.Run("sandboxed", func(t *testing.T) {
		t.Parallel()
		shell, err := exec.LookPath("busybox")
		for _, e := range []error{err, otherUsers(), namespaces()} {
			if e != nil {
				t.Skip("cannot isolate builders: ", e)
			}
		}
		k := newKiller(t, c, "sandbox = true\nsandbox-fallback = false\nsandbox-paths = /bin/sh="+shell+"\nbuild-users-group = killed\n", true)
		k.run(numberFrom(t, killCount, fewKills))
	})
}

// killer is one store whose daemon does not live long.
type killer struct {
	t      *testing.T
	s      scratch
	c      client
	opts   daemonOptions
	load   *load.Load
	luck   *rand.Rand
	daemon *daemon

	kills, builders  int
	deleted, crashed int // by upstream's collector, and of upstream's collectors; one goroutine's

	// Guards built.
	mu    sync.Mutex
	built []string // by real clients, with roots
}

func newKiller(t *testing.T, c client, conf string, users bool) *killer {
	base := os.Getenv("NIXDAEMON_COMPAT_TMP")
	if users {
		base = "/var/cache" // build users' directories must not lie where everybody can write
	}
	k := &killer{t: t, s: newScratchIn(t, base), c: c, opts: daemonOptions{users: users}, luck: rand.New(rand.NewPCG(3, uint64(numberFrom(t, powerSeed, 1))))}
	k.s.configureClient(t, c)
	k.s.configure(t, "max-jobs = 3\ntrusted-users = *\n"+conf)
	k.load = load.New(load.Options{
		Socket: k.s.socket(), StoreDir: k.s.path("store"), StateDir: k.s.path("var/nix"), Clients: 4, Deletes: true, Lossy: true,
		Seed: uint64(numberFrom(t, powerSeed, 1)), Tolerate: tolerateKills,
		Builds: []string{
			"echo $name > $out",
			"i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; echo $name $dep > $out",
		},
	})
	return k
}

// tolerateKills are the refusals that follow from kills: a builder that was killed, and a derivation that was collected
// because the daemon that knew of its temporary root is dead.
func tolerateKills(text string) bool {
	return strings.Contains(text, "signal 9") || strings.Contains(text, "killed by signal") || strings.Contains(text, "its process was killed") ||
		strings.Contains(text, ".drv")
}

func (k *killer) run(kills int) {
	k.start()
	for k.kills < kills && !k.t.Failed() {
		k.storm(min(checkEvery, kills-k.kills))
		k.check()
	}
	k.t.Logf("%d kills of the daemon, %d of builders, %d of upstream's collector, which deleted %d paths: %v, %d promises, %d builds by real clients",
		k.kills, k.builders, k.crashed, k.deleted, k.load.Counts(), len(k.load.Promises()), len(k.built))
}

func (k *killer) start() { k.daemon = launchDaemon(k.t, k.s, shared.daemon, k.opts) }

// storm has everybody work while the daemon is killed again and again.
func (k *killer) storm(kills int) {
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := k.load.Run(ctx); err != nil {
			k.t.Error(err)
		}
	})
	work.Go(func() { k.realBuilds(ctx) })
	work.Go(func() { k.foreignOptimiser(ctx) })
	work.Go(func() { k.foreignCollector(ctx) })
	for range kills {
		k.strike()
	}
	stop()
	work.Wait()
}

// strike waits for the daemon to be up, and a little longer, and kills it.
func (k *killer) strike() {
	if err := k.daemon.awaitSocket(k.s.socket()); err != nil {
		k.t.Error(err)
	}
	time.Sleep(time.Duration(k.luck.Int64N(int64(150 * time.Millisecond))))
	if k.luck.IntN(4) == 0 {
		k.killBuilder()
		time.Sleep(time.Duration(k.luck.Int64N(int64(20 * time.Millisecond))))
	}
	k.kills++
	switch main := k.daemon.cmd.Process.Pid; k.luck.IntN(3) {
	case 0:
		k.daemon.kill()
		k.start()
	case 1: // the supervisor alone: its server finishes with the clients that it has, beside the next one
		k.daemon.cmd.Process.Kill()
		<-k.daemon.exited
		k.start()
	default: // the server alone: the supervisor starts another
		for _, pid := range serversOf(main) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// serversOf gives the servers of a supervisor. What has yet to become one, or prepares its accounts, is none.
func serversOf(pid int) []int {
	return slices.DeleteFunc(childrenOf(pid), func(child int) bool {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", child))
		return err != nil || exe != shared.daemon.path
	})
}

// killBuilder kills a process that a server has started, if there is any.
func (k *killer) killBuilder() {
	var pids []int
	for _, server := range serversOf(k.daemon.cmd.Process.Pid) {
		pids = append(pids, childrenOf(server)...)
	}
	if len(pids) > 0 && syscall.Kill(pids[k.luck.IntN(len(pids))], syscall.SIGKILL) == nil {
		k.builders++
	}
}

// realBuilds builds with the real client, whose success is a promise, too.
func (k *killer) realBuilds(ctx context.Context) {
	if err := os.MkdirAll(k.s.path("links"), 0o755); err != nil {
		k.t.Error(err)
	}
	for n := 0; ctx.Err() == nil; n++ {
		expr := fmt.Sprintf(`derivation { name = "real-%d-%d"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-ec" "echo %d > $out" ]; }`, k.kills, n, n)
		cmd := exec.CommandContext(ctx, filepath.Join(k.c.bin, "nix-build"), "-E", expr, "--out-link", k.s.path("links", fmt.Sprintf("%d-%d", k.kills, n)))
		cmd.Env, cmd.Dir = k.s.clientEnv(k.c), k.s.path("home")
		if out, err := cmd.Output(); err == nil {
			k.mu.Lock()
			k.built = append(k.built, strings.TrimSpace(string(out)))
			k.mu.Unlock()
		}
	}
}

// foreignOptimiser has upstream optimise the same store, by itself.
func (k *killer) foreignOptimiser(ctx context.Context) {
	for ctx.Err() == nil {
		cmd := exec.Command(filepath.Join(k.c.bin, "nix-store"), "--optimise")
		cmd.Env, cmd.Dir = append(k.s.clientEnv(k.c), "NIX_REMOTE="), k.s.path("home")
		// It may meet what is being deleted and give up, which is its own affair.
		cmd.Run()
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// foreignCollector has upstream collect in the same store, by itself, and kills it now and then. It collects what it has
// added: a collection of everything looks for permanent roots before temporary ones and so, by its own fault, loses what
// becomes permanent in between if its daemon dies at that moment.
func (k *killer) foreignCollector(ctx context.Context) {
	luck := rand.New(rand.NewPCG(7, uint64(k.kills)))
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(k.c.bin, "nix-store"), args...)
		cmd.Env, cmd.Dir = append(k.s.clientEnv(k.c), "NIX_REMOTE="), k.s.path("home")
		return cmd
	}
	for n := 0; ctx.Err() == nil; n++ {
		file := k.s.path("home", fmt.Sprintf("foreign-%d-%d", k.kills, n))
		if err := os.WriteFile(file, []byte(file), 0o600); err != nil {
			k.t.Error(err)
			return
		}
		out, err := command("--add", file).Output()
		if err != nil {
			continue // it met what is being deleted, or repaired
		}
		cmd := command("--delete", strings.TrimSpace(string(out)))
		var crash *time.Timer
		if err := cmd.Start(); err != nil {
			k.t.Error(err)
			return
		}
		if luck.IntN(3) == 0 {
			crash = time.AfterFunc(time.Duration(luck.Int64N(int64(60*time.Millisecond))), func() { cmd.Process.Kill() })
		}
		switch err := cmd.Wait(); {
		case err == nil:
			k.deleted++
		case !cmd.ProcessState.Exited():
			k.crashed++
		}
		if crash != nil {
			crash.Stop()
		}
	}
}

// check looks at everything, with the last daemon that was started.
func (k *killer) check() {
	t := k.t
	ctx := context.Background()
	k.awaitAnswer()
	// Nobody makes roots now, so upstream may collect everything.
	k.s.must(t, k.c, []string{"NIX_REMOTE="}, "nix-store", "--gc")
	f, err := k.load.Check(ctx, k.s.socket(), func(p load.Promise) bool { return p.Released < 0 })
	if err != nil {
		t.Fatal(err)
	}
	if !f.OK() {
		t.Errorf("after %d kills: %v", k.kills, f)
	}
	k.mu.Lock()
	built := k.built
	k.mu.Unlock()
	if len(built) > 0 {
		k.s.must(t, k.c, nil, "nix-store", append([]string{"--check-validity"}, built...)...)
	}
	k.s.must(t, k.c, nil, "nix-store", "--verify", "--check-contents")
	k.s.must(t, k.c, nil, "nix-store", "--gc")
	mustStop(t, k.daemon)
	k.s.verify(t, k.c)
	k.checkLeftovers()
	k.start()
	k.goOn()
}

// awaitAnswer waits for a server that answers: the last one may just have been killed.
func (k *killer) awaitAnswer() {
	k.t.Helper()
	err := poll(startLimit, func() error {
		c, err := nixclient.Open(context.Background(), nixclient.Options{Dial: nixclient.Unix(k.s.socket()), Dir: storepath.Dir(k.s.path("store"))})
		if err != nil {
			return err
		}
		return c.Close()
	})
	if err != nil {
		k.t.Fatal(err)
	}
}

// checkLeftovers looks for what a dead daemon could have left after a collection.
func (k *killer) checkLeftovers() {
	valid := strings.Fields(k.s.must(k.t, k.c, []string{"NIX_REMOTE="}, "nix-store", "--dump-db"))
	known := make(map[string]bool)
	for _, word := range valid {
		known[filepath.Base(word)] = true
	}
	entries, err := os.ReadDir(k.s.path("store"))
	if err != nil {
		k.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".links" && !known[e.Name()] {
			k.t.Errorf("%s is left in the store after a collection", e.Name())
		}
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), k.s.root) {
		k.t.Errorf("something is still mounted: %v", err)
	}
	locks, _ := filepath.Glob(k.s.path("var/nix/*/*"))
	for _, name := range append(locks, k.s.path("var/nix/gc.lock")) {
		if f, err := os.Open(name); err == nil {
			if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
				k.t.Errorf("%s is locked, and by nobody", name)
			}
			f.Close()
		}
	}
}

// goOn works for a moment without being killed: for longer where the machine has so much else to do that nothing is done.
func (k *killer) goOn() {
	k.awaitAnswer()
	for moment := 300 * time.Millisecond; moment < time.Minute; moment *= 2 {
		ctx, cancel := context.WithTimeout(context.Background(), moment)
		after := load.New(load.Options{
			Socket: k.s.socket(), StoreDir: k.s.path("store"), StateDir: k.s.path("var/nix"), Clients: 3,
			Seed: 1000 + uint64(k.kills) + uint64(moment), Builds: []string{"echo $name > $out"},
		})
		err := after.Run(ctx)
		cancel()
		if err != nil {
			k.t.Errorf("work does not go on after %d kills: %v", k.kills, err)
			return
		}
		if len(after.Promises()) != 0 {
			return
		}
	}
	k.t.Error("nothing is done any more")
}
