package buildusers

import (
	"fmt"
	"strings"
)

// groupFromDirectory turns what macOS's dscl prints for a group into a line of group(5), or "" without a group id.
// Attributes stand as "Name: value value"; a long list of values goes on in lines that begin with a space.
func groupFromDirectory(name, text string) string {
	attributes := make(map[string][]string)
	var attribute string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, " ") {
			var found bool
			if attribute, line, found = strings.Cut(line, ":"); !found {
				continue
			}
		}
		attributes[attribute] = append(attributes[attribute], strings.Fields(line)...)
	}
	gid := attributes["PrimaryGroupID"]
	if len(gid) != 1 {
		return ""
	}
	return fmt.Sprintf("%s:*:%s:%s", name, gid[0], strings.Join(attributes["GroupMembership"], ","))
}
