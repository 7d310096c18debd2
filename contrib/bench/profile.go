package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// profile records what the daemon and its children do until the result is
// called, in a file of the folder that is named for the workload and the
// process. It does nothing if the folder is "".
func (d *daemon) profile(ctx context.Context, folder, workload string) (stop func(), err error) {
	if folder == "" {
		return func() {}, nil
	}
	name := strings.NewReplacer(" ", "-", ",", "").Replace(workload)
	file := filepath.Join(folder, fmt.Sprintf("%s.%d.perf", name, d.cmd.Process.Pid))
	var pids []string
	for _, pid := range tree(d.cmd.Process.Pid) { // those that are there already: perf follows new ones alone
		pids = append(pids, fmt.Sprint(pid))
	}
	perf := exec.CommandContext(ctx, "perf", "record", "-q", "-g", "-F", "2999", "-o", file, "-p", strings.Join(pids, ","))
	perf.Stderr = os.Stderr
	if err := perf.Start(); err != nil {
		return nil, err
	}
	time.Sleep(500 * time.Millisecond) // until it records; it does not tell
	return func() {
		perf.Process.Signal(os.Interrupt)
		perf.Wait()
	}, nil
}
