package builtin

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// pkg is one output of a package of a user environment.
type pkg struct {
	path     string
	active   bool
	priority int
}

// parsePackages reads the variable "derivations": for each package whether it is active, its priority, the number of
// its outputs, and their paths, all separated by white space.
func parsePackages(s string) ([]pkg, error) {
	words := strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\n\r", r) })
	var pkgs []pkg
	for len(words) > 0 {
		if len(words) < 3 {
			return nil, fmt.Errorf("parse attribute 'derivations': %d words at its end are not a package", len(words))
		}
		priority, err := strconv.ParseInt(words[1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("parse attribute 'derivations': priority '%s' is not an integer", words[1])
		}
		outputs, err := strconv.ParseUint(words[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("parse attribute 'derivations': number of outputs '%s' is not an integer", words[2])
		}
		active := words[0] != "false"
		words = words[3:]
		if outputs > uint64(len(words)) {
			return nil, fmt.Errorf("parse attribute 'derivations': %d outputs announced, %d words left", outputs, len(words))
		}
		for _, path := range words[:outputs] {
			pkgs = append(pkgs, pkg{path, active, int(priority)})
		}
		words = words[outputs:]
	}
	return pkgs, nil
}

// sortPackages puts those first whose files win.
func sortPackages(pkgs []pkg) {
	slices.SortFunc(pkgs, func(a, b pkg) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), comparePaths(a.path, b.path))
	})
}

// comparePaths orders file names as std::filesystem::path does: component by component.
func comparePaths(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}
