package darwinprofile

import "strings"

// A rule of more text than this is split: macOS refuses rules that are too large to compile (the limit is 64 KiB in the
// compiled form; upstream's bug 4119).
const maxRule = 16 << 10

// filter is one condition of a rule, as text. A rule applies where one of its filters does.
type filter string

func literal(name string) filter { return filter("(literal " + quote(name) + ")") }

func subpath(name string) filter { return filter("(subpath " + quote(name) + ")") }

func literals(names ...string) []filter {
	filters := make([]filter, len(names))
	for i, name := range names {
		filters[i] = literal(name)
	}
	return filters
}

func subpaths(names ...string) []filter {
	filters := make([]filter, len(names))
	for i, name := range names {
		filters[i] = subpath(name)
	}
	return filters
}

// quote makes a string of the profile language, which is Scheme's. [validatePath] keeps control characters out.
func quote(s string) string {
	if strings.ContainsAny(s, `\"`) {
		s = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)
	}
	return `"` + s + `"`
}

// profile is a text in the making.
type profile struct{ strings.Builder }

// section begins a group of rules with a comment that says what for.
func (p *profile) section(comment string) { p.WriteString("\n; " + comment + "\n") }

// always allows operations anywhere.
func (p *profile) always(operations string) { p.WriteString("(allow " + operations + ")\n") }

// deny forbids operations anywhere.
func (p *profile) deny(operations string) { p.WriteString("(deny " + operations + ")\n") }

// allow permits operations where one of the filters applies. No filter at all means that nothing is permitted, whereas
// such a rule would permit everything.
func (p *profile) allow(operations string, filters ...filter) {
	for len(filters) > 0 {
		p.WriteString("(allow " + operations)
		size := 0
		for len(filters) > 0 && (size == 0 || size+len(filters[0]) <= maxRule) {
			p.WriteString("\n       " + string(filters[0]))
			size += len(filters[0])
			filters = filters[1:]
		}
		p.WriteString(")\n")
	}
}
