package installation

import "io/fs"

// Facts are what Gather has found.
type Facts struct {
	// Root tells whether the daemon would run as root, as it does where it serves several users.
	Root bool
	// ConfFile is the system's nix.conf; ConfErr what is wrong with the configuration as a whole.
	ConfFile     string
	ConfMissing  bool
	ConfErr      string
	ConfWarnings []string
	// Remote is the store that would be served if it is no local one.
	Remote          string
	StoreDir, State Dir
	Database        Database
	Users           Users
	Namespaces      []Namespace
	// GroupsKept: the system does not let us drop supplementary groups, as in containers of users without privileges.
	GroupsKept               bool
	SandboxMode, BuilderPath string // of the setting sandbox; what builders find as /bin/sh, empty for nothing
	Cgroups                  Cgroups
	Socket                   Socket
	Service                  Service
}

// Dir is a directory of the store.
type Dir struct {
	Path     string
	Missing  bool
	Mode     fs.FileMode
	UID, GID uint32
	ReadOnly bool // its mount
	Full     bool // there is hardly any space left
	Writable bool // by this process, the mount aside
}

// Database is the store's.
type Database struct {
	Path    string
	Missing bool
	// Schema is its version, as the file beside it tells; Err why it cannot be told.
	Schema, Supported int
	Err               string
	// Writable tells whether this process may write to it.
	Writable bool
}

// Users are the build users.
type Users struct {
	Group string // of the setting; empty: builds run as the daemon
	// Allocated: ids come from a range instead (auto-allocate-uids).
	Allocated bool
	Missing   bool // the group
	GID       uint32
	Members   []string
	// Unknown are members without an account.
	Unknown []string
}

// Namespace is a kind of namespace, and why this process cannot have one; empty if it can.
type Namespace struct{ Kind, Err string }

// Cgroups is the version 2 hierarchy, where this process is in it.
type Cgroups struct {
	Dir         string
	Controllers []string
	Err         string
}

// Socket is where clients connect.
type Socket struct {
	Path    string
	Missing bool
	Mode    fs.FileMode
	// Listener is the program that listens; empty if nobody does, or that cannot be told.
	Listening bool
	Listener  string
	// Version is what a client is told, Trusted whether it is trusted; Err why it is told nothing.
	Version string
	Trusted string
	Err     string
}

// Service is what the service manager knows of the daemon.
type Service struct {
	// Manager is systemd, or empty where there is none that we know how to ask.
	Manager string
	Units   []Unit
}

// Unit is a unit of systemd.
type Unit struct {
	Name, Load, Active, Enabled, Fragment string
	Program                               string // of ExecStart
	Ours                                  bool   // whether that is this very program
	Type, KillMode                        string
	Reload                                bool // whether it can
}
