package ssh

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Authority is whom to connect to.
type Authority struct {
	// HasUser tells a user that is empty, which is refused, from none.
	HasUser bool
	User    string
	// Host is a name or an address, without brackets.
	Host string
	// Port is 0 for ssh's own choice.
	Port uint16

	text string
}

// String gives the authority as it stands in a store reference.
func (a Authority) String() string { return a.text }

// ParseAuthority reads [user[:password]@]host[:port] as settings.StoreReference
// holds it, and refuses what ssh would take for an option. A password is
// ignored, as upstream does.
func ParseAuthority(text string) (Authority, error) {
	a := Authority{text: text}
	if strings.Contains(text, "/") {
		return a, fmt.Errorf("invalid URL authority: '%s': leftover", text)
	}
	user, host, hasUser := strings.Cut(text, "@")
	if !hasUser {
		user, host = "", text
	}
	a.HasUser = hasUser
	user, _, _ = strings.Cut(user, ":")
	var err error
	if a.User, err = url.PathUnescape(user); err == nil {
		err = a.setHost(host)
	}
	if err != nil {
		return a, fmt.Errorf("invalid URL authority: '%s': %w", text, err)
	}
	return a, a.check()
}

func (a *Authority) setHost(text string) error {
	host, port := text, ""
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
		host, port = text[:i], text[i+1:]
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(inner, "]")
	}
	var err error
	if a.Host, err = url.PathUnescape(host); err != nil || port == "" {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	a.Port = uint16(n)
	return err
}

// check has upstream's texts, but for characters that no name has: they could
// begin another line of a known_hosts file.
func (a Authority) check() error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("invalid SSH authority: '%s': %s", a.text, fmt.Sprintf(format, args...))
	}
	switch {
	case a.HasUser && a.User == "":
		return invalid("user name must not be empty")
	case strings.HasPrefix(a.User, "-"):
		return invalid("user name '%s' must not start with '-'", a.User)
	case a.Host == "":
		return invalid("host name must not be empty")
	case strings.HasPrefix(a.Host, "-"):
		return invalid("host name '%s' must not start with '-'", a.Host)
	case strings.ContainsFunc(a.User+a.Host, isOdd):
		return invalid("user and host name must not contain spaces or control characters")
	}
	return nil
}

func isOdd(r rune) bool { return r <= ' ' || r == 0x7f }

// target is what ssh is told to connect to.
func (a Authority) target() string {
	if a.HasUser {
		return a.User + "@" + a.Host
	}
	return a.Host
}
