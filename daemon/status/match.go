package status

import (
	"fmt"
	"slices"
	"strings"
)

// shortestHash is how much of a hash part names a derivation.
const shortestHash = 4

// AmbiguousError says that a word could mean several derivations.
type AmbiguousError struct {
	Word        string
	Derivations []string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("'%s' could be %s", e.Word, strings.Join(e.Derivations, " or "))
}

// Match finds the builds that a person means: by their number (with or without the server's process number), by the
// path of the derivation or its last part, by the beginning of that, or by the derivation's name. There may be more
// builds than one of a derivation; when there are several derivations the error is an *AmbiguousError.
func Match(builds []Build, word string) ([]Build, error) {
	for _, means := range []func(Build, string) bool{isNumber, isPath, isName, isBeginning} {
		var found []Build
		for _, b := range builds {
			if means(b, word) {
				found = append(found, b)
			}
		}
		if len(found) == 0 {
			continue
		}
		var drvs []string
		for _, b := range found {
			drvs = append(drvs, b.Derivation)
		}
		slices.Sort(drvs)
		if drvs = slices.Compact(drvs); len(drvs) > 1 {
			return nil, &AmbiguousError{word, drvs}
		}
		return found, nil
	}
	return nil, nil
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func isNumber(b Build, word string) bool {
	_, number, _ := strings.Cut(b.ID, "-")
	return b.ID == word || number == word
}

func isPath(b Build, word string) bool { return b.Derivation == word || base(b.Derivation) == word }

func isName(b Build, word string) bool {
	name := Name(b.Derivation)
	return name == word || name+".drv" == word
}

func isBeginning(b Build, word string) bool {
	return len(word) >= shortestHash && strings.HasPrefix(base(b.Derivation), word)
}

// Name is a store path's name for people: without directory and hash part, and of a derivation without its ending.
func Name(path string) string {
	name := base(path)
	if i := strings.IndexByte(name, '-'); i >= 0 {
		name = name[i+1:]
	}
	return strings.TrimSuffix(name, ".drv")
}
