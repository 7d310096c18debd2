package settings

import (
	"cmp"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ReferenceKind tells the bare words from the references that are URLs. The order is upstream's sort order.
type ReferenceKind uint8

// The kinds of store reference.
const (
	ReferenceAuto   ReferenceKind = iota // empty or `auto`: chosen by what the host has
	ReferenceURL                         // scheme and authority
	ReferenceDaemon                      // `daemon`: the Unix socket at its default path
	ReferenceLocal                       // `local`: the local store at its default place
)

// Param is one parameter of a store reference.
type Param struct{ Name, Value string }

// StoreReference names a store and its parameters: what `store`, `substituters` and `trusted-substituters` hold.
// Equal references have equal String.
type StoreReference struct {
	Kind      ReferenceKind
	Scheme    string  // also set for the kinds daemon (unix) and local (local)
	Authority string  // authority and path, as they follow `scheme://`
	Params    []Param // sorted by name, names unique
}

// Param returns the value of a parameter.
func (r StoreReference) Param(name string) (string, bool) {
	i := slices.IndexFunc(r.Params, func(p Param) bool { return p.Name == name })
	if i < 0 {
		return "", false
	}
	return r.Params[i].Value, true
}

// Compare orders references as upstream's sets do.
func (r StoreReference) Compare(o StoreReference) int {
	return cmp.Or(
		cmp.Compare(r.Kind, o.Kind),
		strings.Compare(r.Scheme, o.Scheme),
		strings.Compare(r.Authority, o.Authority),
		slices.CompareFunc(r.Params, o.Params, func(a, b Param) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Value, b.Value))
		}))
}

// String renders the reference canonically. Parsing that gives the same reference again, unless the URL had neither
// authority nor rooted path (as in `host:30`, which is rendered `host://30`).
func (r StoreReference) String() string {
	var b strings.Builder
	switch r.Kind {
	case ReferenceAuto:
		b.WriteString("auto")
	case ReferenceDaemon:
		b.WriteString("daemon")
	case ReferenceLocal:
		b.WriteString("local")
	default:
		b.WriteString(r.Scheme + "://" + r.Authority)
	}
	for i, p := range r.Params {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(percentEncode(p.Name, ":@/?") + "=" + percentEncode(p.Value, ":@/?"))
	}
	return b.String()
}

// ParseStoreReference reads a store URL, one of the words auto, daemon and local, or a path (made absolute against
// the working directory). The error is a *UsageError with upstream's text.
func ParseStoreReference(uri string) (StoreReference, error) {
	if ref, ok := parseStoreURL(uri); ok {
		return ref, nil
	}
	base, query, _ := strings.Cut(uri, "?")
	params, ok := parseQuery(query)
	if ok {
		if ref, ok := parseSpecialReference(base); ok {
			return withParams(ref, params), nil
		}
	}
	return StoreReference{}, usagef("Cannot parse Nix store '%s'", uri)
}

// withParams turns a bare word that has parameters into the URL that it stands for.
func withParams(ref StoreReference, params []Param) StoreReference {
	ref.Params = params
	if len(params) > 0 && ref.Kind != ReferenceAuto {
		ref.Kind = ReferenceURL
	}
	return ref
}

func parseSpecialReference(base string) (StoreReference, bool) {
	switch {
	case base == "" || base == "auto":
		return StoreReference{}, true
	case base == "daemon":
		return StoreReference{Kind: ReferenceDaemon, Scheme: "unix"}, true
	case base == "local":
		return StoreReference{Kind: ReferenceLocal, Scheme: "local"}, true
	case strings.Contains(base, "/") && !strings.Contains(base, "://"):
		abs, err := filepath.Abs(base)
		return StoreReference{Kind: ReferenceURL, Scheme: "local", Authority: encodePath(abs)}, err == nil
	}
	return parseBareIPv6(base)
}

// parseBareIPv6 accepts scheme://[user@]address with an address that is not, or not properly, in brackets. No port
// can be told from the address then.
func parseBareIPv6(base string) (StoreReference, bool) {
	scheme, rest, ok := strings.Cut(base, ":")
	if !ok || !isScheme(scheme) {
		return StoreReference{}, false
	}
	rest = strings.TrimPrefix(rest, "//")
	user, host, hasUser := strings.Cut(rest, "@")
	if !hasUser {
		user, host = "", rest
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	address, zone, hasZone := strings.Cut(host, "%")
	user, userOK := parseUserInfo(user)
	if ip, err := netip.ParseAddr(address); err != nil || !ip.Is6() || !userOK || !only(zone, unreserved) || hasZone == (zone == "") {
		return StoreReference{}, false
	}
	authority := "[" + address
	if hasZone {
		authority += "%25" + zone
	}
	authority += "]"
	if hasUser {
		authority = user + "@" + authority
	}
	return StoreReference{Kind: ReferenceURL, Scheme: scheme, Authority: authority}, true
}

const (
	unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	subDelims  = "!$&'()*+,;="
	pathChars  = unreserved + subDelims + ":@%/"
	queryChars = pathChars + "?[] \""
)

// only says whether s consists of chars, which are all ASCII.
func only(s, chars string) bool {
	return strings.Trim(s, chars) == ""
}

// parseStoreURL reads scheme:[//authority]path[?query][#fragment] after RFC 3986. The fragment has no meaning.
func parseStoreURL(uri string) (StoreReference, bool) {
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok || !isScheme(scheme) {
		return StoreReference{}, false
	}
	rest, fragment, _ := strings.Cut(rest, "#")
	rest, query, _ := strings.Cut(rest, "?")
	params, ok := parseQuery(query)
	if !ok || !only(fragment, queryChars+"^#") {
		return StoreReference{}, false
	}
	isFile := scheme[strings.IndexByte(scheme, '+')+1:] == "file"
	location, ok := parseLocation(rest, isFile)
	if !ok {
		return StoreReference{}, false
	}
	return StoreReference{Kind: ReferenceURL, Scheme: scheme, Authority: location, Params: params}, true
}

func isScheme(s string) bool {
	return s != "" && only(s[:1], unreserved[:52]) && only(s, unreserved[:62]+"+-.")
}

// parseLocation reads [//authority]path and renders it again in its one canonical form.
func parseLocation(rest string, isFile bool) (string, bool) {
	authority, path, authorityOK := "", rest, true
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		i := strings.IndexByte(after, '/')
		if i < 0 {
			i = len(after)
		}
		authority, authorityOK = parseAuthority(after[:i])
		path = after[i:]
	}
	decoded, err := url.PathUnescape(path)
	if err != nil || !authorityOK || !only(path, pathChars) || isFile && authority != "" {
		return "", false
	}
	if isFile && path == "" {
		return "/", true
	}
	if !strings.Contains(path, "%2F") && !strings.Contains(path, "%2f") {
		return authority + encodePath(decoded), true
	}
	return authority + encodeSegments(strings.Split(path, "/")), true
}

// encodeSegments is encodePath for a path in which some segment contains an encoded slash.
func encodeSegments(segments []string) string {
	for i, segment := range segments {
		if decoded, err := url.PathUnescape(segment); err == nil {
			segments[i] = percentEncode(decoded, ":@")
		}
	}
	return strings.Join(segments, "/")
}

func parseAuthority(s string) (string, bool) {
	user, host, hasUser := strings.Cut(s, "@")
	if !hasUser {
		user, host = "", s
	}
	host, port, ok := splitPort(host)
	if !ok {
		return "", false
	}
	host, hostOK := parseHost(host)
	user, userOK := parseUserInfo(user)
	if hasUser {
		user += "@"
	}
	return user + host + port, hostOK && userOK
}

// splitPort returns the port with its colon; an empty port is dropped.
func splitPort(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasSuffix(s, "]") {
		return s, "", true
	}
	host, port = s[:i], s[i+1:]
	if port == "" {
		return host, "", true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return host, ":" + strconv.FormatUint(n, 10), err == nil && n > 0
}

func parseHost(s string) (string, bool) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		decoded, err := url.PathUnescape(inner)
		if !ok || err != nil {
			return "", false
		}
		ip, err := netip.ParseAddr(decoded)
		return "[" + percentEncode(decoded, ":") + "]", err == nil && ip.Is6()
	}
	decoded, err := url.PathUnescape(s)
	return percentEncode(decoded, ""), err == nil && only(s, unreserved+subDelims+"%")
}

func parseUserInfo(s string) (string, bool) {
	user, password, hasPassword := strings.Cut(s, ":")
	decodedUser, err1 := url.PathUnescape(user)
	decodedPassword, err2 := url.PathUnescape(password)
	res := percentEncode(decodedUser, "")
	if hasPassword {
		res += ":" + percentEncode(decodedPassword, "")
	}
	return res, err1 == nil && err2 == nil && only(s, unreserved+subDelims+":%")
}

// parseQuery reads name=value&...; the first of equal names counts, what has no = is ignored. Blanks and double
// quotes may stand unescaped.
func parseQuery(query string) ([]Param, bool) {
	if !only(query, queryChars) {
		return nil, false
	}
	var params []Param
	for _, item := range strings.Split(query, "&") {
		name, value, hasValue := strings.Cut(item, "=")
		name, err1 := url.PathUnescape(name)
		value, err2 := url.PathUnescape(value)
		if err1 != nil || err2 != nil {
			return nil, false
		}
		if hasValue {
			params = append(params, Param{name, value})
		}
	}
	slices.SortStableFunc(params, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(params, func(a, b Param) bool { return a.Name == b.Name }), true
}

// references is the codec of a setting that is a list of store references. Parameters without a value are passed over,
// with a warning (libutil/url.cc, decodeQuery).
type references struct{ field[[]string] }

func (r references) set(s *Settings, name, value string, extend bool, warn func(string)) error {
	if err := r.field.set(s, name, value, extend, warn); err != nil {
		return err
	}
	for _, word := range strings.Fields(value) {
		for _, item := range withoutValue(word) {
			warn("dubious URI query '" + item + "' is missing equal sign '=', ignoring")
		}
	}
	return nil
}

// withoutValue gives the parameters of a reference that have none.
func withoutValue(reference string) (items []string) {
	reference, _, _ = strings.Cut(reference, "#")
	_, query, _ := strings.Cut(reference, "?")
	if query == "" {
		return nil
	}
	for item := range strings.SplitSeq(query, "&") {
		if !strings.Contains(item, "=") {
			items = append(items, item)
		}
	}
	return items
}

func encodePath(path string) string { return percentEncode(path, ":@/") }

func percentEncode(s, keep string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if strings.IndexByte(unreserved, c) >= 0 || strings.IndexByte(keep, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}
