package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/storepath"
)

// daemon is one that runs on a scratch store.
type daemon struct {
	config  *config
	dir     string
	cmd     *exec.Cmd
	env     []string
	started time.Duration
	logged  *os.File
	binary  string
}

// start runs a daemon on a fresh store and waits for its first answer.
func start(ctx context.Context, scratch *scratch, binary string, c *config) (*daemon, error) {
	dir, err := os.MkdirTemp(scratch.dir, "")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	d := &daemon{dir: dir}
	if err := d.launch(ctx, binary, c); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *daemon) launch(ctx context.Context, binary string, c *config) error {
	d.config = c
	// Without a state directory upstream takes another daemon to be the store: itself.
	for _, sub := range []string{"etc", "home", "var"} {
		if err := os.Mkdir(filepath.Join(d.dir, sub), 0o755); err != nil {
			return err
		}
	}
	configuration, err := c.text()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.dir, "etc/nix.conf"), []byte(configuration), 0o644); err != nil {
		return err
	}
	d.become(binary)
	return d.run(ctx)
}

// become has another program be the daemon when it is started next.
func (d *daemon) become(binary string) {
	d.binary = binary
	d.env = append([]string{
		"PATH=/usr/bin:/bin", "HOME=" + d.dir + "/home",
		"NIX_CONF_DIR=" + d.dir + "/etc", "NIX_STORE_DIR=" + d.storeDir(), "NIX_STATE_DIR=" + d.dir + "/var",
		"NIX_LOCALSTATE_DIR=" + d.dir + "/var", "NIX_LOG_DIR=" + d.dir + "/log", "NIX_DAEMON_SOCKET_PATH=" + d.socket(),
	}, programEnv(binary)...)
}

// restart ends the daemon and starts it on the same store, which it knows
// nothing of then.
func (d *daemon) restart(ctx context.Context) error {
	d.end()
	return d.run(ctx)
}

func (d *daemon) run(ctx context.Context) error {
	begin := time.Now()
	if err := d.spawn(); err != nil {
		return err
	}
	if err := d.awaitAnswer(ctx); err != nil {
		d.stop()
		return err
	}
	d.started = time.Since(begin)
	return nil
}

// spawn starts the program and waits for nothing.
func (d *daemon) spawn() error {
	log, err := os.Create(filepath.Join(d.dir, "daemon.log"))
	if err != nil {
		return err
	}
	d.logged = log
	if d.cmd, err = d.config.command(d.dir, d.binary); err != nil {
		return err
	}
	d.cmd.Env, d.cmd.Stderr, d.cmd.Stdout = d.env, log, log
	return d.cmd.Start()
}

// programEnv reads the file "env" beside a program's folder: lines of
// "export NAME=VALUE".
func programEnv(binary string) []string {
	f, err := os.Open(filepath.Join(filepath.Dir(filepath.Dir(binary)), "env"))
	if err != nil {
		return nil
	}
	defer f.Close()
	var env []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if pair, ok := strings.CutPrefix(lines.Text(), "export "); ok {
			env = append(env, pair)
		}
	}
	return env
}

func (d *daemon) socket() string   { return d.dir + "/socket" }
func (d *daemon) storeDir() string { return d.dir + "/store" }

func (d *daemon) awaitAnswer(ctx context.Context) error {
	return d.await(ctx, func(o client.Options) error {
		c, err := client.Open(ctx, o)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// await asks until there is an answer.
func (d *daemon) await(ctx context.Context, ask func(client.Options) error) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := ask(d.options())
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return errors.Join(ctx.Err(), fmt.Errorf("daemon does not answer: %w", err))
		}
		time.Sleep(200 * time.Microsecond)
	}
}

func (d *daemon) options() client.Options {
	return client.Options{Dial: patient(client.Unix(d.socket())), Dir: storepath.Dir(d.storeDir())}
}

// patient tries again while a daemon has more connections waiting than it lets wait: old ones take five.
func patient(dial func(context.Context) (io.ReadWriteCloser, error)) func(context.Context) (io.ReadWriteCloser, error) {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		for {
			conn, err := dial(ctx)
			if !errors.Is(err, syscall.EAGAIN) || ctx.Err() != nil {
				return conn, err
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// pool opens a pool of at most n connections with so many build slots.
func (d *daemon) pool(n int, slots uint64) *client.Client {
	o := d.options()
	o.MaxConns = n
	o.Settings = &protocol.ClientOptions{MaxJobs: slots, Cores: 1, BuildVerbosity: 7, Verbosity: 0}
	return client.New(o)
}

func (d *daemon) stop() {
	d.end()
	dropLarge(d.dir)
}

// log gives what the daemon has logged, as far as it can be read.
func (d *daemon) log() []byte {
	text, _ := os.ReadFile(d.logged.Name())
	return text
}

func (d *daemon) end() {
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.cmd.Wait()
	d.logged.Close()
}

// kill ends the daemon and all that it has started, at once.
func (d *daemon) kill() error {
	for _, pid := range tree(d.cmd.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			return err
		}
	}
	d.end()
	return nil
}

// ticksPerSecond is the unit of times in /proc (proc(5)); Linux has used 100
// on every platform that we run on.
const ticksPerSecond = 100

// cpu is the time that the daemon and all its descendants have used, the
// finished ones included, in seconds.
func (d *daemon) cpu() float64 {
	var ticks float64
	for _, pid := range tree(d.cmd.Process.Pid) {
		fields := statFields(pid)
		for i := 11; i <= 14 && i < len(fields); i++ { // utime stime cutime cstime
			n, _ := strconv.ParseFloat(fields[i], 64)
			ticks += n
		}
	}
	return ticks / ticksPerSecond
}

// memory is the proportional set size of the daemon and all its descendants,
// in bytes.
func (d *daemon) memory() float64 {
	var total float64
	for _, pid := range tree(d.cmd.Process.Pid) {
		total += pss(pid)
	}
	return total
}

// pss is the proportional set size of a process, in bytes.
func pss(pid int) float64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return n * 1024
		}
	}
	return 0
}

// tree gives a process and its living descendants.
func tree(root int) []int {
	children := make(map[int][]int)
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if fields := statFields(pid); len(fields) > 1 {
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], pid)
		}
	}
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	return pids
}

// statFields gives the fields of /proc/<pid>/stat behind the command's name.
func statFields(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	at := strings.LastIndexByte(string(data), ')')
	return strings.Fields(string(data)[at+1:])
}

// command runs an upstream program on the daemon's store, through the daemon or
// directly.
func (d *daemon) command(ctx context.Context, program, remote string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(append([]string{}, d.env...), programEnv(program)...)
	cmd.Env = append(cmd.Env, "NIX_REMOTE="+remote)
	cmd.Stdout = io.Discard
	out := &strings.Builder{}
	cmd.Stderr = out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, out)
	}
	return nil
}
