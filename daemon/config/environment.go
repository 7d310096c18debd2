package config

import (
	"path"
	"path/filepath"
	"strings"

	"nixdaemon/worker/settings"
)

// The places that upstream compiles in.
const (
	defaultConfDir  = "/etc/nix"
	defaultStoreDir = "/nix/store"
	defaultStateDir = "/nix/var/nix"
	defaultLogDir   = "/nix/var/log/nix"
	socketName      = "daemon-socket/socket"
)

// nonEmpty returns the first of the variables that is set and not empty.
func (l *loader) nonEmpty(fallback string, names ...string) string {
	for _, name := range names {
		if v, ok := l.in.Getenv(name); ok && v != "" {
			return v
		}
	}
	return fallback
}

// orElse returns a variable that is set, even to nothing.
func (l *loader) orElse(name, fallback string) string {
	if v, ok := l.in.Getenv(name); ok {
		return v
	}
	return fallback
}

// dir is an absolute path out of the variables, or the fallback.
func (l *loader) dir(fallback string, names ...string) (string, error) {
	return settings.ParseAbsPath(names[0], l.nonEmpty(fallback, names...))
}

// environment fills in what the variables decide, and makes the defaults of all settings.
func (l *loader) environment() (err error) {
	host := l.in.Host
	if host.ConfDir, err = l.dir(defaultConfDir, "NIX_CONF_DIR"); err != nil {
		return err
	}
	if l.cfg.StateDir, err = l.dir(defaultStateDir, "NIX_STATE_DIR"); err != nil {
		return err
	}
	if l.cfg.LogDir, err = l.dir(defaultLogDir, "NIX_LOG_DIR"); err != nil {
		return err
	}
	socket := path.Join(l.cfg.StateDir, socketName)
	if l.cfg.SocketPath, err = l.dir(socket, "NIX_DAEMON_SOCKET_PATH"); err != nil {
		return err
	}
	host.Remote, host.RemoteSet = l.in.Getenv("NIX_REMOTE")
	if _, err := settings.ParseStoreReference(host.Remote); err != nil {
		return err
	}
	systems, ok := l.in.Getenv("NIX_REMOTE_SYSTEMS")
	host.RemoteSystemsSet = ok
	host.RemoteSystems = strings.FieldsFunc(systems, func(r rune) bool { return r == ':' })
	host.IgnoreSymlinkStore = l.orElse("NIX_IGNORE_SYMLINK_STORE", "") == "1"
	host.SSLCertFileOverride = l.orElse("NIX_SSL_CERT_FILE", l.orElse("SSL_CERT_FILE", ""))
	l.cfg.Settings = settings.Defaults(host)
	l.cfg.ConfFile = path.Join(host.ConfDir, "nix.conf")
	l.cfg.UserConfFiles = l.userConfFiles()
	return nil
}

// userConfFiles are those of NIX_USER_CONF_FILES, or nix.conf in the directories of the XDG specification.
func (l *loader) userConfFiles() []string {
	if list, ok := l.in.Getenv("NIX_USER_CONF_FILES"); ok {
		if list == "" {
			return nil
		}
		files := strings.Split(list, ":")
		for i := range files {
			if files[i] == "" {
				files[i] = "."
			}
		}
		return files
	}
	home := l.orElse("XDG_CONFIG_HOME", filepath.Join(l.in.Home, ".config"))
	files := []string{filepath.Join(l.orElse("NIX_CONFIG_HOME", filepath.Join(home, "nix")), "nix.conf")}
	for _, dir := range strings.Split(l.orElse("XDG_CONFIG_DIRS", "/etc/xdg"), ":") {
		if dir != "" {
			files = append(files, filepath.Join(dir, "nix", "nix.conf"))
		}
	}
	return files
}

// dataDir is where the user's data belongs.
func (l *loader) dataDir() string {
	home := l.orElse("XDG_DATA_HOME", filepath.Join(l.in.Home, ".local", "share"))
	return l.orElse("NIX_DATA_HOME", filepath.Join(home, "nix"))
}
