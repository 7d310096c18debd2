package transfer

import "strings"

// credentials are for basic authentication.
type credentials struct {
	user, password string
	hasUser        bool
}

// lookupNetrc finds the credentials for a host in the text of a netrc file, as libcurl does: the first entry for that
// host, or "default", that has the login which is wanted, or any if none is.
func lookupNetrc(text, host, login string) (credentials, bool) {
	s := netrcScanner{text: text}
	var found credentials
	matching := false
	fits := func() bool {
		return matching && (found.hasUser || found.password != "") && (login == "" || found.user == login || !found.hasUser)
	}
	for {
		word, ok := s.next()
		if !ok {
			return found, fits()
		}
		switch strings.ToLower(word) {
		case "machine", "default":
			if fits() {
				return found, true
			}
			found, matching = credentials{}, true
			if strings.EqualFold(word, "machine") {
				name, _ := s.next()
				matching = name != "" && strings.EqualFold(name, host)
			}
		case "macdef":
			s.skipMacro()
		case "login":
			if value, ok := s.next(); ok && matching {
				found.user, found.hasUser = value, true
			}
		case "password":
			if value, ok := s.next(); ok && matching {
				found.password = value
			}
		case "account":
			s.next()
		}
	}
}

// netrcScanner splits a netrc file into words.
type netrcScanner struct{ text string }

const netrcSpace = " \t\r\n\v\f"

// next gives the next word. Words may be in double quotes, with escapes; a word that begins with # begins a comment.
func (s *netrcScanner) next() (string, bool) {
	for {
		s.text = strings.TrimLeft(s.text, netrcSpace)
		if s.text == "" {
			return "", false
		}
		if s.text[0] != '#' {
			break
		}
		_, s.text, _ = strings.Cut(s.text, "\n")
	}
	if s.text[0] == '"' {
		return s.quoted(), true
	}
	end := strings.IndexAny(s.text, netrcSpace)
	if end < 0 {
		end = len(s.text)
	}
	word := s.text[:end]
	s.text = s.text[end:]
	return word, true
}

func (s *netrcScanner) quoted() string {
	var b strings.Builder
	for i := 1; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			s.text = s.text[i+1:]
			return b.String()
		case c == '\\' && i+1 < len(s.text):
			i++
			b.WriteByte(unescape(s.text[i]))
		default:
			b.WriteByte(c)
		}
	}
	s.text = ""
	return b.String()
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

// skipMacro passes over a macro, which an empty line ends.
func (s *netrcScanner) skipMacro() {
	for s.text != "" {
		var line string
		line, s.text, _ = strings.Cut(s.text, "\n")
		if strings.Trim(line, "\r") == "" {
			return
		}
	}
}
