package settings

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

func isSpace(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' }

func tokens(value string) []string { return strings.FieldsFunc(value, isSpace) }

func sortedSet(items []string) []string {
	slices.Sort(items)
	return slices.Compact(items)
}

func joinWords(items []string) string { return strings.Join(items, " ") }

// ParseBool reads a boolean: true, yes or 1, and false, no or 0. The error names the setting.
func ParseBool(name, value string) (bool, error) { return parseBool(name, value) }

// ParseAbsPath reads an absolute path and cleans it. An empty one is refused, naming the setting.
func ParseAbsPath(name, value string) (string, error) { return parseAbsPath(name, value) }

// Tokens splits a value into its words.
func Tokens(value string) []string { return tokens(value) }

func parseBool(name, value string) (bool, error) {
	switch value {
	case "true", "yes", "1":
		return true, nil
	case "false", "no", "0":
		return false, nil
	}
	return false, usagef("Boolean setting '%s' has invalid value '%s'", name, value)
}

func renderBool(v bool) string { return strconv.FormatBool(v) }

// isDecimal accepts an optional sign and digits, nothing else: no blanks, underscores or other bases.
func isDecimal(s string) bool {
	if s != "" && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// ParseInteger reads a decimal number with an optional suffix K, M, G or T (powers of 1024, either case). What does
// not fit into bits bits, before or after multiplying, is refused; upstream lets the product wrap around.
func ParseInteger(value string, bits int) (uint64, error) {
	digits, shift, err := splitUnit(value)
	if err != nil {
		return 0, err
	}
	if !isDecimal(digits) || digits[0] == '-' {
		return 0, usagef("'%s' is not an integer", digits)
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(digits, "+"), 10, bits)
	limit := uint64(math.MaxUint64) >> (64 - bits)
	if err != nil || n > limit>>shift {
		return 0, usagef("'%s' is not an integer", digits)
	}
	return n << shift, nil
}

func splitUnit(value string) (digits string, shift uint, err error) {
	if value == "" {
		return "", 0, nil
	}
	last := value[len(value)-1]
	if last|0x20 < 'a' || last|0x20 > 'z' {
		return value, 0, nil
	}
	i := strings.IndexByte("kmgt", last|0x20)
	if i < 0 {
		return "", 0, usagef("invalid unit specifier '%c'", last&^0x20)
	}
	return value[:len(value)-1], uint(i+1) * 10, nil
}

func parseUint[T ~uint | ~uint32 | ~uint64](bits int) func(name, value string) (T, error) {
	return func(name, value string) (T, error) {
		n, err := ParseInteger(value, bits)
		if err != nil {
			return 0, usagef("setting '%s' has invalid value '%s'", name, value)
		}
		return T(n), nil
	}
}

func renderUint[T ~uint | ~uint32 | ~uint64](v T) string { return strconv.FormatUint(uint64(v), 10) }

func parseSigned[T ~int64](name, value string) (T, error) {
	digits, negative := strings.CutPrefix(value, "-")
	n, err := ParseInteger(digits, 64)
	limit := uint64(math.MaxInt64)
	if negative {
		limit++
	}
	if err != nil || negative && strings.HasPrefix(digits, "+") || n > limit {
		return 0, usagef("setting '%s' has invalid value '%s'", name, value)
	}
	if negative {
		n = -n
	}
	return T(n), nil
}

func renderSigned[T ~int64](v T) string { return strconv.FormatInt(int64(v), 10) }

func parseString(_, value string) (string, error) { return value, nil }

func renderString(v string) string { return v }

func parseProfiler(name, value string) (string, error) {
	if value != "disabled" && value != "flamegraph" {
		return "", usagef("option '%s' has invalid value '%s'", name, value)
	}
	return value, nil
}

func parseLint(name, value string) (string, error) {
	if value != "ignore" && value != "warn" && value != "fatal" {
		return "", usagef("option '%s' has invalid value '%s' (expected 'ignore', 'warn', or 'fatal')", name, value)
	}
	return value, nil
}

func parsePath(name, value string) (string, error) {
	if value == "" {
		return "", usagef("setting '%s' is a path and paths cannot be empty", name)
	}
	return value, nil
}

func parseAbsPath(name, value string) (string, error) {
	if _, err := parsePath(name, value); err != nil {
		return "", err
	}
	if value[0] != '/' {
		return "", fmt.Errorf("not an absolute path: %s", QuotePath(value))
	}
	return path.Clean(value), nil
}

func parseOptPath(name, value string) (string, error) {
	if value == "" {
		return "", nil
	}
	return parseAbsPath(name, value)
}

// QuotePath renders a path as upstream's messages do: between double quotes, nothing escaped.
func QuotePath(p string) string { return `"` + p + `"` }

func parseList(_, value string) ([]string, error) { return tokens(value), nil }

func parseSet(_, value string) ([]string, error) { return sortedSet(tokens(value)), nil }

func extendList(old, more []string) []string { return slices.Concat(old, more) }

func extendSet(old, more []string) []string { return sortedSet(slices.Concat(old, more)) }

// comparePaths orders by component, so that a directory is followed by what it contains.
func comparePaths(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

func parsePathSet(_, value string) ([]string, error) {
	items := sortedSet(tokens(value))
	slices.SortFunc(items, comparePaths)
	return items, nil
}

// parseMap reads name=value words; words without = are ignored, and the first of equal names counts.
func parseMap(_, value string) (map[string]string, error) {
	res := map[string]string{}
	for _, word := range tokens(value) {
		k, v, ok := strings.Cut(word, "=")
		if _, known := res[k]; ok && !known {
			res[k] = v
		}
	}
	return res, nil
}

func extendMap(old, more map[string]string) map[string]string {
	res := maps.Clone(more)
	maps.Copy(res, old)
	return res
}

// renderMap puts a blank before each pair, the first one too, as upstream does.
func renderMap(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b.WriteString(" " + k + "=" + m[k])
	}
	return b.String()
}

func parseSandbox(name, value string) (SandboxMode, error) {
	switch value {
	case "true":
		return SandboxTrue, nil
	case "relaxed":
		return SandboxRelaxed, nil
	case "false":
		return SandboxFalse, nil
	}
	return 0, usagef("option '%s' has invalid value '%s'", name, value)
}

func parseSandboxPaths(_, value string) ([]SandboxPath, error) {
	byTarget := map[string]SandboxPath{}
	for _, word := range sortedSet(tokens(value)) {
		word, optional := strings.CutSuffix(word, "?")
		target, source, ok := strings.Cut(word, "=")
		if !ok {
			source = target
		}
		byTarget[target] = SandboxPath{Target: target, Source: source, Optional: optional}
	}
	return sortSandboxPaths(byTarget), nil
}

func sortSandboxPaths(byTarget map[string]SandboxPath) []SandboxPath {
	return slices.SortedFunc(maps.Values(byTarget), func(a, b SandboxPath) int {
		return comparePaths(a.Target, b.Target)
	})
}

func extendSandboxPaths(old, more []SandboxPath) []SandboxPath {
	byTarget := map[string]SandboxPath{}
	for _, p := range slices.Concat(more, old) {
		byTarget[p.Target] = p
	}
	return sortSandboxPaths(byTarget)
}

func renderSandboxPaths(paths []SandboxPath) string {
	words := make([]string, len(paths))
	for i, p := range paths {
		words[i] = p.Target
		if p.Source != p.Target {
			words[i] += "=" + p.Source
		}
		if p.Optional {
			words[i] += "?"
		}
	}
	return joinWords(words)
}

func parseReference(_, value string) (string, error) {
	ref, err := ParseStoreReference(value)
	return ref.String(), err
}

func parseReferences(value string) ([]StoreReference, error) {
	var refs []StoreReference
	for _, word := range tokens(value) {
		ref, err := ParseStoreReference(word)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

func renderReferences(refs []StoreReference) []string {
	words := make([]string, len(refs))
	for i, ref := range refs {
		words[i] = ref.String()
	}
	return words
}

func parseReferenceList(_, value string) ([]string, error) {
	refs, err := parseReferences(value)
	return renderReferences(refs), err
}

func parseReferenceSet(_, value string) ([]string, error) {
	refs, err := parseReferences(value)
	slices.SortFunc(refs, StoreReference.Compare)
	return slices.Compact(renderReferences(refs)), err
}

// extendReferenceSet parses again what was rendered, to sort as references rather than as text.
func extendReferenceSet(old, more []string) []string {
	res, err := parseReferenceSet("", joinWords(slices.Concat(old, more)))
	if err != nil {
		return extendSet(old, more)
	}
	return res
}

func parseExternalBuilders(name, value string) ([]ExternalBuilder, error) {
	var builders []ExternalBuilder
	if err := json.Unmarshal([]byte(value), &builders); err != nil {
		return nil, usagef("parsing setting '%s': %s", name, err)
	}
	var fields []map[string]any
	if err := json.Unmarshal([]byte(value), &fields); err != nil {
		return nil, usagef("parsing setting '%s': %s", name, err)
	}
	for i := range builders {
		for _, key := range []string{"systems", "program", "args"} {
			if _, ok := fields[i][key]; !ok {
				text, _ := json.Marshal(fields[i])
				return nil, usagef("parsing setting '%s': Expected JSON object to contain key '%s' but it doesn't: %s", name, key, text)
			}
		}
		builders[i].Systems = sortedSet(builders[i].Systems)
	}
	return builders, nil
}

func renderExternalBuilders(builders []ExternalBuilder) string {
	items := make([]map[string]any, len(builders))
	for i, b := range builders {
		items[i] = map[string]any{
			"args":    append([]string{}, b.Args...),
			"program": b.Program,
			"systems": append([]string{}, b.Systems...),
		}
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(items); err != nil {
		return "[]"
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// clampVerbosity takes a number from the wire; everything beyond the last level shows everything.
func clampVerbosity(v uint64) Verbosity { return Verbosity(min(v, uint64(LevelVomit))) }
