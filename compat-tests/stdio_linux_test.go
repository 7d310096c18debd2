package compat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// relayVar has this program start the daemon in relayProgramVar and be its client's end, with what the variable says
// between the two.
const relayVar, relayProgramVar = "NIXDAEMON_COMPAT_RELAY", "NIXDAEMON_COMPAT_RELAYED"

// killedFifos are fifos for a daemon that SIGTERM does not end while it reads.
const killedFifos = "fifos, killed"

// relayIfAsked does so and ends, if it was started for that.
func relayIfAsked() {
	kind := os.Getenv(relayVar)
	if kind == "" {
		return
	}
	if err := relay(kind); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func relay(kind string) error {
	var to, from, in, out *os.File // the latter two are the daemon's
	var err error
	fifos := strings.HasPrefix(kind, "fifos")
	if fifos {
		if to, in, err = deviceOf(""); err == nil {
			from, out, err = deviceOf("")
		}
	} else {
		to, in, err = deviceOf("terminal")
		from, out = to, in
	}
	if err != nil {
		return err
	}
	if kind == "terminal that does not wait" {
		if err := unix.SetNonblock(int(in.Fd()), true); err != nil {
			return err
		}
	}
	cmd := exec.Command(os.Getenv(relayProgramVar), os.Args[1:]...)
	cmd.Env = append(os.Environ(), relayVar+"=")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, os.Stderr
	// No more comes at the end, which the daemon cannot see through fifos that it has open for writing, too. Clients may
	// end us at once.
	end := unix.SIGTERM
	if kind == killedFifos {
		end = unix.SIGKILL
	}
	runtime.LockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: end}
	if err := cmd.Start(); err != nil {
		return err
	}
	if !fifos {
		in.Close()
	}
	go io.Copy(os.Stdout, from)
	if _, err := io.Copy(to, os.Stdin); err != nil {
		return err
	}
	if fifos {
		cmd.Process.Signal(end)
	} else {
		to.Close()
	}
	err = cmd.Wait()
	if _, ended := errors.AsType[*exec.ExitError](err); ended {
		return nil // as it should
	}
	return err
}

// deviceOf gives both ends of a terminal that changes nothing, or of a fifo.
func deviceOf(kind string) (ours, theirs *os.File, err error) {
	if kind == "" {
		dir, err := os.MkdirTemp("", "fifo")
		if err != nil {
			return nil, nil, err
		}
		defer os.RemoveAll(dir)
		name := filepath.Join(dir, "fifo")
		err = unix.Mkfifo(name, 0o600)
		open := func() (f *os.File) {
			if err == nil {
				f, err = os.OpenFile(name, os.O_RDWR, 0)
			}
			return f
		}
		return open(), open(), err
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)); err != nil {
		return nil, nil, err
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	raw := unix.Termios{Cflag: unix.CS8 | unix.CREAD}
	raw.Cc[unix.VMIN] = 1
	return master, slave, unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, &raw)
}

// TestStdioDevices copies much to and from daemons whose standard input and output are neither pipes nor sockets: there
// is no end to be seen, and somebody else may have them not wait.
func TestStdioDevices(t *testing.T) {
	clients := requireClients(t)
	c := clients[len(clients)-1]
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var big bytes.Buffer
	if _, err := io.CopyN(&big, rand.New(rand.NewSource(1)), 6<<20); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]program{"ours": shared.daemon, "reference": c.program("nix-daemon")} {
		kinds := []string{"terminal", "fifos", "terminal that does not wait"}
		if name == "reference" { // its reads fail where they cannot wait, and do not end where they do
			kinds = []string{"terminal", killedFifos}
		}
		for _, kind := range kinds {
			t.Run(name+"/"+kind, func(t *testing.T) {
				s := newScratch(t)
				s.configureClient(t, c)
				file, wrapper := s.path("tmp/big"), s.path("tmp/wrapper")
				script := fmt.Sprintf("#!/bin/sh\nexec env '%s=%s' '%s=%s' NIX_CONF_DIR=%s %s \"$@\"\n",
					relayVar, kind, relayProgramVar, p.path, s.path("etc"), self)
				if err := errors.Join(os.WriteFile(file, big.Bytes(), 0o644), os.WriteFile(wrapper, []byte(script), 0o755)); err != nil {
					t.Fatal(err)
				}
				far := "ssh-ng://localhost?remote-program=" + wrapper + "&remote-store=" + s.path("far")
				path := s.must(t, c, directEnv, "nix-store", "--add", file)
				s.must(t, c, directEnv, "nix", "copy", "--no-check-sigs", "--to", far, path)
				s.must(t, c, directEnv, "nix-store", "--delete", path)
				s.must(t, c, directEnv, "nix", "copy", "--no-check-sigs", "--from", far, path)
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, big.Bytes()) {
					t.Errorf("%d bytes came back, %v", len(got), err)
				}
				s.must(t, c, directEnv, "nix-store", "--verify", "--check-contents")
				if err := s.awaitQuiet(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
