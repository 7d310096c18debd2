package peer

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/remote/ssh"
	"nixdaemon/worker/settings"
)

// Kind says how a store is spoken to.
type Kind uint8

// The kinds.
const (
	Unix  Kind = iota // worker protocol over a Unix socket
	SSHNG             // worker protocol through ssh
	SSH               // serve protocol through ssh
)

// Config is what a store reference says of a store.
type Config struct {
	Kind Kind
	// URI names the store in messages: the reference without parameters.
	URI string
	// Dir is its store directory.
	Dir storepath.Dir
	// SocketPath is where a Unix store listens.
	SocketPath string

	// Trusted, Priority and WantMassQuery are about use as a substituter.
	Trusted       bool
	Priority      int
	WantMassQuery bool
	// SystemFeatures are those of its builders.
	SystemFeatures []string

	// MaxConnections is at least 1.
	MaxConnections int
	// MaxConnectionAge is 0 for any.
	MaxConnectionAge time.Duration

	// The rest is about ssh.
	Authority ssh.Authority
	KeyFile   string
	HostKey   string
	Compress  bool
	// Keep keeps the connection to the machine while nothing is open through it; see [Rester]. No parameter says so.
	Keep bool
	// RemoteProgram is the command on the other machine.
	RemoteProgram []string
	// RemoteStore is the store that it shall open; "" is its own choice.
	RemoteStore string

	// Mounted says that the files of the other machine's store are here, too: "mounted-ssh-ng".
	Mounted bool

	// Unknown are parameters that mean nothing to this kind of store.
	Unknown []string
}

// Defaults are what a reference leaves open.
type Defaults struct {
	// Dir is the store directory; "" is storepath.DefaultDir.
	Dir storepath.Dir
	// SocketPath is the socket of "daemon" and of "unix://" without a path.
	SocketPath string
	// SystemFeatures is the setting of that name.
	SystemFeatures []string
}

// Opens tells whether Open opens references of a scheme.
func Opens(scheme string) bool {
	return scheme == "unix" || scheme == "ssh" || scheme == "ssh-ng" || scheme == "mounted-ssh-ng"
}

// Parse makes sense of a reference. Errors have upstream's texts.
func Parse(ref settings.StoreReference, d Defaults) (Config, error) {
	p := params{left: make(map[string]string, len(ref.Params))}
	for _, param := range ref.Params {
		p.left[param.Name] = param.Value
	}
	c := Config{URI: ref.Scheme + "://" + ref.Authority, SystemFeatures: d.SystemFeatures}
	c.Dir = storepath.Dir(p.absPath("store", string(d.Dir)))
	if c.Dir == "" {
		c.Dir = storepath.DefaultDir
	}
	c.Trusted = p.bool("trusted")
	c.Priority = p.int("priority", 0)
	c.WantMassQuery = p.bool("want-mass-query")
	if features, ok := p.take("system-features"); ok {
		c.SystemFeatures = settings.Tokens(features)
	}
	p.take("path-info-cache-size")
	c.MaxConnections = max(1, p.int("max-connections", 1))
	var err error
	switch ref.Scheme {
	case "unix":
		err = p.unix(&c, ref, d)
	case "ssh-ng":
		c.Kind = SSHNG
		err = p.ssh(&c, ref, "nix-daemon")
	case "mounted-ssh-ng":
		c.Kind, c.Mounted, c.URI = SSHNG, true, "ssh-ng://"+ref.Authority // as upstream calls it, too
		for _, name := range []string{"root", "state", "log", "real"} {
			p.take(name) // where its files are mounted
		}
		err = p.ssh(&c, ref, "nix-daemon")
	case "ssh":
		c.Kind = SSH
		err = p.ssh(&c, ref, "nix-store")
	default:
		err = fmt.Errorf("don't know how to open Nix store with scheme '%s'", ref.Scheme)
	}
	if err == nil {
		err = p.err
	}
	for _, param := range ref.Params {
		if _, left := p.left[param.Name]; left {
			c.Unknown = append(c.Unknown, param.Name)
		}
	}
	return c, err
}

// params are parameters, which are taken away as they are understood.
type params struct {
	left map[string]string
	err  error
}

func (p *params) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *params) take(name string) (string, bool) {
	value, ok := p.left[name]
	delete(p.left, name)
	return value, ok
}

func (p *params) bool(name string) bool {
	value, ok := p.take(name)
	if !ok {
		return false
	}
	b, err := settings.ParseBool(name, value)
	p.fail(err)
	return b
}

func (p *params) int(name string, fallback int) int {
	value, ok := p.take(name)
	if !ok {
		return fallback
	}
	digits, negative := strings.CutPrefix(value, "-")
	n, err := settings.ParseInteger(digits, 31)
	if err != nil {
		p.fail(&settings.UsageError{Msg: fmt.Sprintf("setting '%s' has invalid value '%s'", name, value)})
		return fallback
	}
	if negative {
		return -int(n)
	}
	return int(n)
}

// absPath reads a path; an empty one is none.
func (p *params) absPath(name, fallback string) string {
	value, ok := p.take(name)
	if !ok || value == "" {
		return fallback
	}
	path, err := settings.ParseAbsPath(name, value)
	p.fail(err)
	return path
}

// age reads seconds. What is past counting is any age.
func (p *params) age(name string) time.Duration {
	value, ok := p.take(name)
	if !ok {
		return 0
	}
	n, err := settings.ParseInteger(value, 32)
	switch {
	case err != nil:
		p.fail(&settings.UsageError{Msg: fmt.Sprintf("setting '%s' has invalid value '%s'", name, value)})
	case n == 0:
		return 1 // nothing is used twice
	case n == math.MaxUint32:
		return 0
	}
	return time.Duration(n) * time.Second
}

func (p *params) unix(c *Config, ref settings.StoreReference, d Defaults) error {
	c.MaxConnectionAge = p.age("max-connection-age")
	for _, name := range []string{"root", "state", "log", "real"} {
		p.take(name) // where the client finds the other daemon's files
	}
	c.SocketPath = d.SocketPath
	path, err := url.PathUnescape(ref.Authority)
	if err != nil {
		return fmt.Errorf("invalid URI parameter '%s': %w", ref.Authority, err)
	}
	if path != "" {
		if c.SocketPath, err = settings.ParseAbsPath("path", path); err != nil {
			return err
		}
	}
	if c.URI = "unix://" + c.SocketPath; c.SocketPath == d.SocketPath {
		c.URI = "daemon" // libstore/uds-remote-store.cc
	}
	return nil
}

func (p *params) ssh(c *Config, ref settings.StoreReference, program string) (err error) {
	if c.Authority, err = ssh.ParseAuthority(ref.Authority); err != nil {
		return err
	}
	if c.Kind == SSHNG {
		c.MaxConnectionAge = p.age("max-connection-age")
	}
	c.KeyFile = p.absPath("ssh-key", "")
	c.HostKey, _ = p.take("base64-ssh-public-host-key")
	c.Compress = p.bool("compress")
	c.RemoteStore, _ = p.take("remote-store")
	c.RemoteProgram = []string{program}
	if words, ok := p.take("remote-program"); ok {
		c.RemoteProgram = settings.Tokens(words)
	}
	if len(c.RemoteProgram) == 0 {
		p.fail(&settings.UsageError{Msg: "setting 'remote-program' has invalid value ''"})
	}
	if fd, ok := p.take("log-fd"); ok && c.Kind == SSH {
		if _, err := strconv.Atoi(fd); err != nil {
			p.fail(&settings.UsageError{Msg: fmt.Sprintf("setting 'log-fd' has invalid value '%s'", fd)})
		}
	}
	return nil
}

// Command is what is run on the other machine.
func (c *Config) Command() []string {
	words := append([]string{}, c.RemoteProgram...)
	if c.Kind == SSH {
		words = append(words, "--serve", "--write")
	} else {
		words = append(words, "--stdio")
	}
	if c.RemoteStore != "" {
		words = append(words, "--store", c.RemoteStore)
	}
	if c.Mounted {
		words = append(words, "--process-ops")
	}
	return words
}
