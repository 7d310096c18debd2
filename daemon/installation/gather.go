package installation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/daemon/config"
	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/sandbox/buildusers"
	"nixdaemon/sandbox/cgroup"
)

// patience bounds what others may take to answer.
const patience = 20 * time.Second

// Gather looks at the machine, as the configuration says where; loadErr is what went wrong with that. program is the
// file that we run from.
func Gather(ctx context.Context, cfg *config.Config, loadErr error, program string) Facts {
	f := Facts{Root: os.Geteuid() == 0, ConfFile: cfg.ConfFile, ConfWarnings: cfg.Warnings}
	if loadErr != nil {
		f.ConfErr = loadErr.Error()
	}
	_, err := os.Stat(cfg.ConfFile)
	f.ConfMissing = err != nil
	switch {
	case loadErr != nil:
		// Where the store is cannot be told.
	case cfg.Store.Kind == config.StoreRemote:
		f.Remote = cfg.Store.Reference.String()
	default:
		f.local(ctx, cfg)
	}
	if cfg.SocketPath != "" {
		f.Socket = lookAtSocket(ctx, cfg.SocketPath)
	}
	f.Service = askSystemd(ctx, program)
	return f
}

// local is what belongs to a store of this machine.
func (f *Facts) local(ctx context.Context, cfg *config.Config) {
	f.StoreDir, f.State = lookAtDir(cfg.Store.RealDir), lookAtDir(cfg.Store.StateDir)
	f.Database = lookAtDatabase(cfg.Store.StateDir)
	f.Users = lookAtUsers(ctx, cfg)
	f.SandboxMode = cfg.Settings.Sandbox.String()
	for _, p := range cfg.Settings.SandboxPaths {
		if p.Target == "/bin/sh" || p.Target == "/bin" {
			f.BuilderPath = p.Source
		}
	}
	f.Namespaces = tryNamespaces(ctx)
	if text, err := os.ReadFile("/proc/self/setgroups"); err == nil {
		f.GroupsKept = strings.TrimSpace(string(text)) == "deny"
	}
	f.Cgroups = lookAtCgroups()
}

func lookAtDir(path string) Dir {
	d := Dir{Path: path}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		d.Missing = true
		return d
	}
	info, err := os.Stat(path)
	if err == nil {
		d.Mode = info.Mode()
	}
	d.UID, d.GID = st.Uid, st.Gid
	d.Writable = unix.Access(path, unix.W_OK) == nil
	d.ReadOnly, d.Full = space(path)
	return d
}

func lookAtDatabase(state string) Database {
	d := Database{Path: filepath.Join(state, "db", "db.sqlite"), Supported: localstore.SchemaVersion}
	if _, err := os.Stat(d.Path); errors.Is(err, os.ErrNotExist) {
		d.Missing = true
		return d
	}
	text, err := os.ReadFile(filepath.Join(state, "db", "schema"))
	if err == nil {
		d.Schema, err = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if err != nil {
		d.Err = err.Error()
	}
	d.Writable = unix.Access(d.Path, unix.W_OK) == nil
	return d
}

func lookAtUsers(ctx context.Context, cfg *config.Config) Users {
	u := Users{Group: cfg.Settings.BuildUsersGroup, Allocated: cfg.Settings.AutoAllocateUIDs}
	if u.Group == "" {
		return u
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var accounts buildusers.System
	g, err := accounts.Group(ctx, u.Group)
	if err != nil {
		u.Missing = true
		return u
	}
	u.GID, u.Members = g.GID, g.Members
	for _, name := range g.Members {
		if _, err := accounts.User(ctx, name); err != nil {
			u.Unknown = append(u.Unknown, name)
		}
	}
	return u
}

func lookAtCgroups() Cgroups {
	h, err := cgroup.Find()
	if err != nil {
		return Cgroups{Err: err.Error()}
	}
	c := Cgroups{Dir: h.Dir()}
	if c.Controllers, err = h.Controllers(); err != nil {
		c.Err = err.Error()
	}
	return c
}

// lookAtSocket connects as a client does; a service manager that listens starts the daemon for it.
func lookAtSocket(ctx context.Context, path string) Socket {
	s := Socket{Path: path}
	info, err := os.Stat(path)
	if err != nil {
		s.Missing = true
		return s
	}
	s.Mode = info.Mode()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pid, err := peer(path)
	if s.Listening = err == nil; !s.Listening {
		s.Err = err.Error()
		return s
	}
	s.Listener = processName(pid)
	conn, err := client.Open(ctx, client.Options{Dial: client.Unix(path), Version: protocol.ClientVersion()})
	if err != nil {
		s.Err = err.Error()
		return s
	}
	defer conn.Close()
	s.Version, s.Trusted = describe(conn.Server())
	return s
}

// describe tells a person what a daemon has said of itself.
func describe(info protocol.ServerInfo) (version, trusted string) {
	version = cmp.Or(info.NixVersion, "before 2.8")
	switch info.Trust {
	case protocol.Trusted:
		return version, "trusted"
	case protocol.NotTrusted:
		return version, "not trusted"
	}
	return version, "not told whether we are trusted"
}

// processName says which program a process runs.
func processName(pid int) string {
	if pid == 1 {
		return "the service manager (process 1)"
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s (process %d)", exe, pid)
}

// askSystemd asks for the daemon's units.
func askSystemd(ctx context.Context, program string) Service {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return Service{}
	}
	s := Service{Manager: "systemd"}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, name := range []string{"nix-daemon.socket", "nix-daemon.service"} {
		out, err := exec.CommandContext(ctx, "systemctl", "show", name).Output()
		if err != nil {
			return Service{}
		}
		s.Units = append(s.Units, parseUnit(name, string(out), program))
	}
	return s
}

// parseUnit reads what "systemctl show" prints.
func parseUnit(name, text, program string) Unit {
	properties := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		properties[key] = value
	}
	u := Unit{
		Name: name, Load: properties["LoadState"], Active: properties["ActiveState"], Enabled: properties["UnitFileState"],
		Fragment: properties["FragmentPath"], Type: properties["Type"], KillMode: properties["KillMode"],
		Reload: properties["CanReload"] == "yes" || properties["ExecReload"] != "",
	}
	// { path=/usr/bin/nix-daemon ; argv[]=nix-daemon --daemon ; ... }
	if _, rest, found := strings.Cut(properties["ExecStart"], "path="); found {
		u.Program, _, _ = strings.Cut(rest, " ;")
		u.Ours = sameFile(u.Program, program)
	}
	return u
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
