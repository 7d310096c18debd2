package installation

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/daemon/config"
	"nixdaemon/protocol"
)

// healthy is a machine on which all is well.
func healthy() Facts {
	namespaces := []Namespace{{"user", ""}, {"mount", ""}}
	return Facts{
		Root: true, ConfFile: "/etc/nix/nix.conf",
		StoreDir:   Dir{Path: "/nix/store", Mode: fs.ModeDir | fs.ModeSticky | 0o775, GID: 30000, Writable: true},
		State:      Dir{Path: "/nix/var/nix", Mode: fs.ModeDir | 0o755, Writable: true},
		Database:   Database{Path: "/nix/var/nix/db/db.sqlite", Schema: 10, Supported: 10, Writable: true},
		Users:      Users{Group: "nixbld", GID: 30000, Members: []string{"nixbld1", "nixbld2"}},
		Namespaces: namespaces, SandboxMode: "true", BuilderPath: "/bin/busybox",
		Cgroups: Cgroups{Dir: "/sys/fs/cgroup/x", Controllers: []string{"memory", "pids"}},
		Socket: Socket{
			Path: "/nix/var/nix/daemon-socket/socket", Mode: fs.ModeSocket | 0o666, Listening: true,
			Listener: "/usr/bin/nix-daemon (process 7)", Version: "2.34.8", Trusted: "trusted",
		},
		Service: Service{Manager: "systemd", Units: []Unit{
			{Name: "nix-daemon.socket", Load: "loaded", Active: "active", Enabled: "enabled", Fragment: "/lib/systemd/system/nix-daemon.socket"},
			{
				Name: "nix-daemon.service", Load: "loaded", Active: "active", Enabled: "enabled", Fragment: "/lib/systemd/system/nix-daemon.service",
				Program: "/usr/bin/nix-daemon", Ours: true, Type: "notify", KillMode: "process", Reload: true,
			},
		}},
	}
}

func TestHealthy(t *testing.T) {
	var out strings.Builder
	well, err := Write(&out, Judge(healthy()))
	if err != nil || !well {
		t.Errorf("%v, %v", well, err)
	}
	const want = `ok    configuration: /etc/nix/nix.conf
ok    store: /nix/store
ok    state: /nix/var/nix
ok    database: /nix/var/nix/db/db.sqlite, schema 10
ok    build users: 2 in group nixbld, so many builds at once
ok    sandbox: namespaces of all kinds
ok    sandbox: /bin/sh is /bin/busybox
ok    cgroups: /sys/fs/cgroup/x, controllers memory, pids
ok    socket: /nix/var/nix/daemon-socket/socket, of /usr/bin/nix-daemon (process 7), answers as version 2.34.8; we are trusted
ok    service: nix-daemon.socket: active, enabled (/lib/systemd/system/nix-daemon.socket)
ok    service: nix-daemon.service starts this program: active, enabled (/lib/systemd/system/nix-daemon.service)
Nothing stands in the way of the daemon.
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

// Each change of a healthy machine is told, by these lines and no others.
func TestUnhealthy(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Facts)
		want   string // lines that are not ok
	}{
		"no configuration": {func(f *Facts) { f.ConfMissing = true }, ""},
		"warnings":         {func(f *Facts) { f.ConfWarnings = []string{"unknown setting 'x'"} }, "note  configuration: unknown setting 'x'\n"},
		"broken configuration": {func(f *Facts) {
			*f = Facts{ConfErr: "syntax error in configuration line 'x' in '/etc/nix/nix.conf'", Service: f.Service}
		}, "BAD   configuration: syntax error in configuration line 'x' in '/etc/nix/nix.conf'\n      the daemon ends with this message when it starts\n"},
		"remote":    {func(f *Facts) { f.Remote, f.Database.Err = "ssh-ng://far", "not looked at" }, ""},
		"new store": {func(f *Facts) { f.StoreDir.Missing, f.Database.Missing = true, true }, "note  store: no /nix/store: the daemon makes it when it starts\n"},
		"read-only": {func(f *Facts) { f.StoreDir.ReadOnly = true }, ""},
		"read-only for others": {func(f *Facts) { f.StoreDir.ReadOnly, f.Root = true, false },
			"BAD   store: /nix/store cannot be written to\n      run this check, and the daemon, as the owner of the store\nnote  build users: none: without root builds run as the daemon's own user\n"},
		"full": {func(f *Facts) { f.State.Full = true },
			"BAD   state: /nix/var/nix: hardly any space is left\n      nix-store --gc; the settings min-free and max-free do it in time\n"},
		"owner": {func(f *Facts) { f.StoreDir.UID = 7 },
			"BAD   store: /nix/store belongs to user 7: who owns it can change every program in it\n      chown root '/nix/store', or run the daemon as its owner\n"},
		"open": {func(f *Facts) { f.StoreDir.Mode = fs.ModeDir | 0o777 },
			"BAD   store: /nix/store can be written to by everybody\n      chmod 1775 '/nix/store'\n"},
		"group": {func(f *Facts) { f.StoreDir.GID = 0 },
			"note  store: /nix/store belongs to group 0, not to the build users' 30000\n      the daemon sets that when it starts\n"},
		"newer schema": {func(f *Facts) { f.Database.Schema = 11 },
			"BAD   database: schema 11, and this daemon knows 10\n      a newer Nix has used this store; get a newer version of this daemon\n"},
		"older schema": {func(f *Facts) { f.Database.Schema = 9 },
			"note  database: schema 9: the daemon brings it to 10\n      older versions of Nix cannot use it then\n"},
		"damaged schema": {func(f *Facts) { f.Database.Err = "cannot read" }, "BAD   database: cannot read\n"},
		"no users": {func(f *Facts) { f.Users.Missing = true },
			"BAD   build users: the group 'nixbld' in 'build-users-group' does not exist\n      systemd-sysusers, with contrib/systemd/sysusers.conf, or groupadd and useradd; or set auto-allocate-uids\n"},
		"empty group": {func(f *Facts) { f.Users.Members = nil },
			"BAD   build users: the build users group 'nixbld' has no members\n      list them in the group: usermod --append --groups nixbld NAME\n"},
		"unknown user": {func(f *Facts) { f.Users.Unknown = []string{"x", "y"} },
			"BAD   build users: the group 'nixbld' lists members that do not exist: x, y\n      make their accounts, or remove them from the group\n"},
		"no group": {func(f *Facts) { f.Users = Users{} },
			"note  build users: none: builds run as root\n      name a group in build-users-group, or set auto-allocate-uids\n"},
		"allocated": {func(f *Facts) { f.Users = Users{Allocated: true} }, ""},
		"no namespaces": {func(f *Facts) { f.Namespaces[0].Err = "operation not permitted" },
			"BAD   sandbox: this system gives no namespaces of the kinds user (operation not permitted)\n      a container needs these to be allowed by whoever runs it; or set sandbox = false, which isolates nothing\n"},
		"no sandbox": {func(f *Facts) { f.Namespaces[0].Err, f.SandboxMode = "operation not permitted", "false" },
			"note  sandbox: off: builders see the whole system\n      set sandbox = true where the kernel can\n"},
		"groups": {func(f *Facts) { f.GroupsKept = true },
			"note  sandbox: supplementary groups cannot be dropped here\n      isolated builds need require-drop-supplementary-groups = false\n"},
		"no shell": {func(f *Facts) { f.BuilderPath = "" },
			"note  sandbox: builders find no /bin/sh\n      install busybox-static, or name a static shell in sandbox-paths as /bin/sh=...\n"},
		"no controllers": {func(f *Facts) { f.Cgroups.Controllers = []string{"pids"} },
			"note  cgroups: /sys/fs/cgroup/x, without the controllers memory\n      max-build-memory and max-build-processes need them; the unit must say Delegate=memory pids\n"},
		"no cgroups": {func(f *Facts) { f.Cgroups.Err = "none" }, "note  cgroups: none for builds: none\n"},
		"no socket":  {func(f *Facts) { f.Socket.Missing = true }, "note  socket: no /nix/var/nix/daemon-socket/socket: no daemon runs\n"},
		"left over": {func(f *Facts) { f.Socket.Listening = false },
			"note  socket: nobody listens at /nix/var/nix/daemon-socket/socket: it is left over\n"},
		"dumb": {func(f *Facts) { f.Socket.Err, f.Socket.Listener = "protocol mismatch", "" },
			"BAD   socket: /nix/var/nix/daemon-socket/socket, of a process that is not shown to us, does not answer as a daemon does: protocol mismatch\n      look into the log of who listens\n"},
		"closed": {func(f *Facts) { f.Socket.Mode = fs.ModeSocket | 0o660 },
			"note  socket: /nix/var/nix/daemon-socket/socket has mode 660\n      who cannot write to it cannot connect\n"},
		"no systemd": {func(f *Facts) { f.Service = Service{} }, "note  service: no systemd here to ask\n"},
		"no unit": {func(f *Facts) { f.Service.Units[0].Load = "not-found" },
			"note  service: systemd knows no nix-daemon.socket\n      contrib/systemd has them; make install puts them in place\n"},
		"another program": {func(f *Facts) { f.Service.Units[1].Ours = false },
			"note  service: nix-daemon.service starts /usr/bin/nix-daemon: active, enabled (/lib/systemd/system/nix-daemon.service)\n      this check was made with another program\n"},
		"rough unit": {func(f *Facts) { u := &f.Service.Units[1]; u.Type, u.KillMode, u.Reload = "simple", "mixed", false },
			"BAD   service: nix-daemon.service has KillMode=mixed: builds end when the daemon is restarted\n      set KillMode=process\n" +
				"note  service: nix-daemon.service has Type=simple: systemd is not told when the daemon is ready\n      set Type=notify\n" +
				"note  service: nix-daemon.service cannot be reloaded: upgrades need a restart\n      set ExecReload=/bin/kill -HUP $MAINPID\n"},
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			tt.change(&f)
			var out strings.Builder
			well, err := Write(&out, Judge(f))
			if bad := strings.Contains(tt.want, "BAD"); err != nil || well == bad {
				t.Errorf("well: %v, %v", well, err)
			}
			var got strings.Builder
			for line := range strings.Lines(out.String()) {
				if !strings.HasPrefix(line, "ok") && !strings.HasSuffix(line, "the way of the daemon.\n") {
					got.WriteString(line)
				}
			}
			if diff := cmp.Diff(tt.want, got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWriteFails(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	if _, err := Write(w, Judge(healthy())); err == nil {
		t.Error("no error")
	}
}

func TestParseUnit(t *testing.T) {
	program := filepath.Join(t.TempDir(), "nix-daemon")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	text := "Type=notify\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\nFragmentPath=/x/nix-daemon.service\nKillMode=process\n" +
		"ExecStart={ path=" + program + " ; argv[]=nix-daemon --daemon ; ignore_errors=no ; start_time=[n/a] }\n" +
		"ExecReload={ path=/bin/kill ; argv[]=/bin/kill -HUP $MAINPID }\nCanReload=yes\n"
	want := Unit{
		Name: "nix-daemon.service", Load: "loaded", Active: "active", Enabled: "enabled", Fragment: "/x/nix-daemon.service",
		Program: program, Ours: true, Type: "notify", KillMode: "process", Reload: true,
	}
	if diff := cmp.Diff(want, parseUnit("nix-daemon.service", text, program)); diff != "" {
		t.Error(diff)
	}
	if u := parseUnit("x", text, "/elsewhere"); u.Ours {
		t.Error("another program passes for ours")
	}
	if diff := cmp.Diff(Unit{Name: "x"}, parseUnit("x", "garbage\n", program)); diff != "" {
		t.Error(diff)
	}
}

func TestDescribe(t *testing.T) {
	for _, tt := range []struct {
		info             protocol.ServerInfo
		version, trusted string
	}{
		{protocol.ServerInfo{}, "before 2.8", "not told whether we are trusted"},
		{protocol.ServerInfo{NixVersion: "2.34.8", Trust: protocol.Trusted}, "2.34.8", "trusted"},
		{protocol.ServerInfo{NixVersion: "2.34.8", Trust: protocol.NotTrusted}, "2.34.8", "not trusted"},
	} {
		if version, trusted := describe(tt.info); version != tt.version || trusted != tt.trusted {
			t.Errorf("%v: %q, %q", tt.info, version, trusted)
		}
	}
}

// Gather looks at a store that is as good as none, and at a socket whose listener says nothing sensible.
func TestGather(t *testing.T) {
	dir := t.TempDir()
	in := config.Process()
	in.Args = []string{"nix-daemon"}
	cfg, err := config.Load(in)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConfFile, cfg.SocketPath = filepath.Join(dir, "nix.conf"), filepath.Join(dir, "s")
	cfg.Store = config.StoreConfig{Kind: config.StoreLocal, RealDir: filepath.Join(dir, "store"), StateDir: dir}
	l, err := net.Listen("unix", cfg.SocketPath)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte("no daemon here\n"))
			conn.Close()
		}
	}()
	if err := os.MkdirAll(filepath.Join(dir, "db"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"db/db.sqlite": "", "db/schema": "ten"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f := Gather(context.Background(), cfg, nil, "/nowhere")
	if !f.ConfMissing || !f.StoreDir.Missing || f.State.Missing || !f.State.Writable || f.Database.Missing || f.Database.Err == "" {
		t.Errorf("%+v", f)
	}
	if !f.Socket.Listening || f.Socket.Err == "" {
		t.Errorf("%+v", f.Socket)
	}
	l.Close()
	<-answered
	if s := lookAtSocket(context.Background(), cfg.SocketPath); s.Listening {
		t.Errorf("%+v", s)
	}
	if f := Gather(context.Background(), cfg, errors.New("broken"), "/nowhere"); f.ConfErr != "broken" || f.StoreDir.Path != "" {
		t.Errorf("%+v", f)
	}
}
