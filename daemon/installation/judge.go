package installation

import (
	"cmp"
	"io/fs"
	"slices"
	"strings"
)

func (r *report) configuration(f Facts) {
	const area = "configuration"
	switch {
	case f.ConfErr != "":
		r.bad(area, "the daemon ends with this message when it starts", "%s", f.ConfErr)
	case f.ConfMissing:
		r.good(area, "no %s: all settings are the defaults", f.ConfFile)
	default:
		r.good(area, "%s", f.ConfFile)
	}
	for _, w := range f.ConfWarnings {
		r.note(area, "", "%s", w)
	}
	if f.Remote != "" {
		r.good("store", "that of %s: this daemon passes on what clients ask for", f.Remote)
	}
}

func (r *report) store(f Facts) {
	r.dir(f, "store", f.StoreDir)
	r.dir(f, "state", f.State)
	if m := f.StoreDir; f.Root && !m.Missing {
		switch {
		case m.UID != 0:
			r.bad("store", "chown root '"+m.Path+"', or run the daemon as its owner", "%s belongs to user %d: who owns it can change every program in it", m.Path, m.UID)
		case m.Mode.Perm()&0o002 != 0 && m.Mode&fs.ModeSticky == 0:
			r.bad("store", "chmod 1775 '"+m.Path+"'", "%s can be written to by everybody", m.Path)
		case f.Users.Group != "" && !f.Users.Missing && !f.Users.Allocated && m.GID != f.Users.GID:
			r.note("store", "the daemon sets that when it starts", "%s belongs to group %d, not to the build users' %d", m.Path, m.GID, f.Users.GID)
		}
	}
}

func (r *report) dir(f Facts, area string, d Dir) {
	switch {
	case d.Missing:
		r.note(area, "", "no %s: the daemon makes it when it starts", d.Path)
	case d.ReadOnly && f.Root:
		r.good(area, "%s, read-only but for the daemon, which makes it writable for itself alone", d.Path)
	case d.ReadOnly || !d.Writable:
		r.bad(area, "run this check, and the daemon, as the owner of the store", "%s cannot be written to", d.Path)
	case d.Full:
		r.bad(area, "nix-store --gc; the settings min-free and max-free do it in time", "%s: hardly any space is left", d.Path)
	default:
		r.good(area, "%s", d.Path)
	}
}

func (r *report) database(d Database) {
	const area = "database"
	switch {
	case d.Missing:
		r.good(area, "none yet at %s", d.Path)
	case d.Err != "":
		r.bad(area, "", "%s", d.Err)
	case d.Schema > d.Supported:
		r.bad(area, "a newer Nix has used this store; get a newer version of this daemon", "schema %d, and this daemon knows %d", d.Schema, d.Supported)
	case !d.Writable:
		r.bad(area, "run this check, and the daemon, as the owner of the store", "%s cannot be written to", d.Path)
	case d.Schema < d.Supported:
		r.note(area, "older versions of Nix cannot use it then", "schema %d: the daemon brings it to %d", d.Schema, d.Supported)
	default:
		r.good(area, "%s, schema %d", d.Path, d.Schema)
	}
}

func (r *report) users(f Facts) {
	const area = "build users"
	u := f.Users
	switch {
	case !f.Root:
		r.note(area, "", "none: without root builds run as the daemon's own user")
	case u.Allocated:
		r.good(area, "allocated to each build (auto-allocate-uids)")
	case u.Group == "":
		r.note(area, "name a group in build-users-group, or set auto-allocate-uids", "none: builds run as root")
	case u.Missing:
		r.bad(area, "systemd-sysusers, with contrib/systemd/sysusers.conf, or groupadd and useradd; or set auto-allocate-uids", "the group '%s' in 'build-users-group' does not exist", u.Group)
	case len(u.Members) == 0:
		r.bad(area, "list them in the group: usermod --append --groups "+u.Group+" NAME", "the build users group '%s' has no members", u.Group)
	case len(u.Unknown) > 0:
		r.bad(area, "make their accounts, or remove them from the group", "the group '%s' lists members that do not exist: %s", u.Group, strings.Join(u.Unknown, ", "))
	default:
		r.good(area, "%d in group %s, so many builds at once", len(u.Members), u.Group)
	}
}

func (r *report) sandbox(f Facts) {
	const area = "sandbox"
	if f.GroupsKept && f.Root {
		r.note(area, "isolated builds need require-drop-supplementary-groups = false", "supplementary groups cannot be dropped here")
	}
	if f.SandboxMode == "false" {
		r.note(area, "set sandbox = true where the kernel can", "off: builders see the whole system")
		return
	}
	var missing []string
	for _, n := range f.Namespaces {
		if n.Err != "" {
			missing = append(missing, n.Kind+" ("+n.Err+")")
		}
	}
	switch {
	case len(f.Namespaces) == 0:
		r.note(area, "", "not examined on this system")
	case len(missing) > 0:
		r.bad(area, "a container needs these to be allowed by whoever runs it; or set sandbox = false, which isolates nothing",
			"this system gives no namespaces of the kinds %s", strings.Join(missing, ", "))
	default:
		r.good(area, "namespaces of all kinds")
	}
	if f.BuilderPath == "" {
		r.note(area, "install busybox-static, or name a static shell in sandbox-paths as /bin/sh=...", "builders find no /bin/sh")
	} else {
		r.good(area, "/bin/sh is %s", f.BuilderPath)
	}
}

func (r *report) cgroups(c Cgroups) {
	const area = "cgroups"
	if c.Err != "" {
		r.note(area, "", "none for builds: %s", c.Err)
		return
	}
	var missing []string
	for _, name := range []string{"memory", "pids"} {
		if !slices.Contains(c.Controllers, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		r.note(area, "max-build-memory and max-build-processes need them; the unit must say Delegate=memory pids",
			"%s, without the controllers %s", c.Dir, strings.Join(missing, ", "))
		return
	}
	r.good(area, "%s, controllers %s", c.Dir, strings.Join(c.Controllers, ", "))
}

func (r *report) socket(s Socket) {
	const area = "socket"
	switch {
	case s.Missing:
		r.note(area, "", "no %s: no daemon runs", s.Path)
	case s.Mode&0o222 != 0o222:
		r.note(area, "who cannot write to it cannot connect", "%s has mode %o", s.Path, s.Mode.Perm())
	}
	switch {
	case s.Missing:
	case !s.Listening:
		r.note(area, "", "nobody listens at %s: %s", s.Path, cmp.Or(s.Err, "it is left over"))
	case s.Err != "":
		r.bad(area, "look into the log of who listens", "%s, of %s, does not answer as a daemon does: %s", s.Path, listener(s), s.Err)
	default:
		r.good(area, "%s, of %s, answers as version %s; we are %s", s.Path, listener(s), s.Version, s.Trusted)
	}
}

func listener(s Socket) string { return cmp.Or(s.Listener, "a process that is not shown to us") }

func (r *report) service(f Facts) {
	const area = "service"
	if f.Service.Manager == "" {
		r.note(area, "", "no systemd here to ask")
		return
	}
	for _, u := range f.Service.Units {
		if u.Load != "loaded" {
			r.note(area, "contrib/systemd has them; make install puts them in place", "systemd knows no %s", u.Name)
			continue
		}
		state := u.Active + ", " + cmp.Or(u.Enabled, "not to be enabled")
		if u.Program == "" {
			r.good(area, "%s: %s (%s)", u.Name, state, u.Fragment)
			continue
		}
		r.daemonUnit(u, state)
	}
}

func (r *report) daemonUnit(u Unit, state string) {
	const area = "service"
	if !u.Ours {
		r.note(area, "this check was made with another program", "%s starts %s: %s (%s)", u.Name, u.Program, state, u.Fragment)
		return
	}
	r.good(area, "%s starts this program: %s (%s)", u.Name, state, u.Fragment)
	if u.KillMode != "process" {
		r.bad(area, "set KillMode=process", "%s has KillMode=%s: builds end when the daemon is restarted", u.Name, u.KillMode)
	}
	if u.Type != "notify" {
		r.note(area, "set Type=notify", "%s has Type=%s: systemd is not told when the daemon is ready", u.Name, u.Type)
	}
	if !u.Reload {
		r.note(area, "set ExecReload=/bin/kill -HUP $MAINPID", "%s cannot be reloaded: upgrades need a restart", u.Name)
	}
}
