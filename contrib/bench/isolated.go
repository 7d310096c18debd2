package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// isolated are the rows of builds in a sandbox.
func isolated() []workload {
	sandboxed := func(c *config) { c.sandbox = true }
	users := func(c *config) { c.sandbox, c.users = true, 32 }
	return []workload{
		{name: "300 trivial builds, sandboxed, 2 slots", unit: "/s", configure: sandboxed, prepare: derivations(300), run: builds(2)},
		{name: "300 trivial builds, sandboxed, 8 slots", unit: "/s", configure: sandboxed, prepare: derivations(300), run: builds(8)},
		{name: "the same with 32 build users", unit: "/s", configure: users, prepare: derivations(300), run: builds(8)},
		{name: "300 trivial builds, 32 build users, 8 slots", unit: "/s", configure: func(c *config) { c.users = 32 }, prepare: derivations(300), run: builds(8)},
		{name: "chain of 60, sandboxed", unit: "/s", configure: sandboxed, prepare: chain(60), run: builds(2)},
		{name: "20 sandboxed builds with 800 inputs", unit: "/s", configure: sandboxed, prepare: withInputs(20, 800), run: builds(2)},
		{name: "8 clients with 40 builds each, sandboxed", unit: "/s", configure: sandboxed, prepare: derivations(320), run: clientsBuild(8)},
		{name: "1,200 builds in one request, sandboxed", unit: "/s", configure: sandboxed, prepare: derivations(1200), run: builds(2)},
	}
}

// config is how a daemon is set up for a workload.
type config struct {
	// sandbox isolates builds. users is how many build users there are, 0 for none: builds run as the daemon's own.
	sandbox bool
	users   int
	// optimise has every file linked to equal ones as it is added.
	optimise bool
	// jobs is how many builds may run at once for all clients of our daemon; 0 is its default.
	jobs int
	// store, if not nil, gives the URL of the store that the daemon has for its own.
	store func() string
}

// text is the daemon's nix.conf.
func (c *config) text() (string, error) {
	s := "substituters =\ntrusted-users = *\nmax-jobs = 2\n"
	if c.jobs > 0 {
		s += fmt.Sprintf("max-total-jobs = %d\n", c.jobs) // others say that they do not know it
	}
	if c.store != nil {
		s += "store = " + c.store() + "\n"
	}
	if c.optimise {
		s += "auto-optimise-store = true\n"
	}
	if c.users > 0 {
		s += "build-users-group = " + benchGroup + "\n"
	} else {
		s += "build-users-group =\n"
	}
	if !c.sandbox {
		return s + "sandbox = false\n", nil
	}
	// A shell that needs no library, so that builders see nothing else.
	shell, err := exec.LookPath("busybox")
	if err != nil {
		return "", fmt.Errorf("find a static shell (install busybox-static): %w", err)
	}
	return s + "sandbox = true\nsandbox-fallback = false\nsandbox-paths = /bin/sh=" + shell + "\n", nil
}

// Build users have ids that are nobody's; the daemon sees accounts for them, the machine does not.
const (
	benchGroup = "benchbuild"
	benchID    = 1_800_000_000
)

// command is how the daemon is started.
func (c *config) command(dir, binary string) (*exec.Cmd, error) {
	if c.users == 0 {
		return exec.Command(binary, "--daemon"), nil
	}
	var names []string
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil, err
	}
	group, err := os.ReadFile("/etc/group")
	if err != nil {
		return nil, err
	}
	for i := range c.users {
		name := fmt.Sprintf("%s%d", benchGroup, i+1)
		names = append(names, name)
		passwd = fmt.Appendf(passwd, "%s:x:%d:%d::/var/empty:/usr/sbin/nologin\n", name, benchID+i+1, benchID)
	}
	group = fmt.Appendf(group, "%s:x:%d:%s\n", benchGroup, benchID, strings.Join(names, ","))
	for file, text := range map[string][]byte{"passwd": passwd, "group": group} {
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o644); err != nil {
			return nil, err
		}
	}
	const script = `mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group && exec "$2" --daemon`
	return exec.Command("unshare", "--mount", "sh", "-c", script, "sh", dir, binary), nil
}

// withInputs writes derivations that have the same sources, so many.
func withInputs(count, inputs int) func(*bench) error {
	return func(b *bench) error {
		c := b.pool(1, 1)
		defer c.Close()
		var sources []storepath.Path
		for i := range b.n(inputs) {
			info, err := c.AddToStore(b.ctx, protocol.AddToStoreRequest{Name: fmt.Sprintf("input-%d", i), MethodAlgo: "fixed:r:sha256"},
				strings.NewReader(directoryNAR(i)))
			if err != nil {
				return err
			}
			sources = append(sources, info.Path)
		}
		for i := range b.n(count) {
			d, err := trivial(b, fmt.Sprintf("consumer-%d", i), storepath.Path{})
			if err != nil {
				return err
			}
			d.Env["out"] = ""
			d.Outputs = map[string]derivation.Output{"out": {Kind: derivation.Deferred}}
			d.InputSrcs = storepath.SortUnique(sources)
			d.Outputs = map[string]derivation.Output{"out": {Kind: derivation.Deferred}}
			h := &derivation.Hasher{Dir: storepath.Dir(b.storeDir()), Memo: b.memo()}
			if err := h.FillOutputPaths(b.ctx, d); err != nil {
				return err
			}
			if _, err := addDerivation(b, c, d); err != nil {
				return err
			}
		}
		return nil
	}
}

// directoryNAR is the archive of a directory with one file.
func directoryNAR(i int) string {
	var b strings.Builder
	for _, s := range []string{"nix-archive-1", "(", "type", "directory", "entry", "(", "name", "file", "node",
		"(", "type", "regular", "contents", fmt.Sprint(i), ")", ")", ")"} {
		n := len(s)
		b.Write([]byte{byte(n), 0, 0, 0, 0, 0, 0, 0})
		b.WriteString(s + strings.Repeat("\x00", -n&7))
	}
	return b.String()
}
