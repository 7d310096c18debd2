package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// counter is an open file of a network namespace's /proc/net, and what it said first.
type counter struct {
	fd    int
	first []byte
}

// counterFiles are those that tell how often something has happened in a namespace, without any device's having seen it.
var counterFiles = [...]string{"snmp", "snmp6", "netstat"}

// openCounters opens those that there are. A file of /proc/net belongs to the namespace of the thread that opens it, and
// keeps belonging to it.
func openCounters(namespace int) (counters []counter, err error) {
	onOwnThread(func() {
		if err = unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter network namespace: %w", err)
			return
		}
		counters, err = openCountersHere()
	})
	return counters, err
}

// onOwnThread runs f on a thread that ends with it: nothing else ever runs in what f enters.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good
		if unix.Gettid() == unix.Getpid() {
			// The main thread's namespaces are what /proc/self shows, and it cannot end before the process: hold it while
			// another is used.
			defer runtime.UnlockOSThread()
			onOwnThread(f)
			return
		}
		f()
	}()
	<-done
}

func openCountersHere() ([]counter, error) {
	var counters []counter
	for _, name := range counterFiles {
		path := "/proc/thread-self/net/" + name
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			continue // without IPv6, for one
		}
		c := counter{fd: fd}
		if err == nil {
			counters = append(counters, c)
			c.first, err = c.read()
			counters[len(counters)-1] = c
		}
		if err != nil {
			closeCounters(counters)
			return nil, fmt.Errorf("open '%s': %w", path, err)
		}
	}
	return counters, nil
}

// counterSize bounds what such a file says.
const counterSize = 32 << 10

func (c *counter) read() ([]byte, error) {
	buf := make([]byte, counterSize)
	size := 0
	for {
		n, err := unix.Pread(c.fd, buf[size:], int64(size))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, err
		case n == 0:
			return bytes.Clone(buf[:size]), nil
		default:
			if size += n; size == len(buf) {
				return nil, errors.New("it says more than is known")
			}
		}
	}
}

// unchanged reads once: the kernel says all of it at a time, and anew for each call.
func (c *counter) unchanged() bool {
	now := make([]byte, len(c.first)+1)
	n, err := unix.Pread(c.fd, now, 0)
	return err == nil && bytes.Equal(now[:n], c.first)
}

func closeCounters(counters []counter) {
	for _, c := range counters {
		unix.Close(c.fd)
	}
}
