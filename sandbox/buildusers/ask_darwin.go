package buildusers

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"strconv"
)

// askSystem asks the directory service, which has all real accounts on macOS, for a name or a number. It returns the entry as a line of the
// corresponding file, or "" for a name that is not there. Supplementary groups are not used on macOS, as upstream.
func askSystem(ctx context.Context, database, name string) (string, error) {
	switch database {
	case "passwd":
		return askUser(name)
	case "group":
		return askGroup(ctx, name)
	}
	return "", nil
}

func askUser(name string) (string, error) {
	lookup := user.Lookup
	if isNumber(name) {
		lookup = user.LookupId
	}
	u, err := lookup(name)
	var unknown user.UnknownUserError
	var unknownID user.UnknownUserIdError
	if errors.As(err, &unknown) || errors.As(err, &unknownID) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s:*:%s:%s:::", u.Username, u.Uid, u.Gid), nil
}

func askGroup(ctx context.Context, name string) (string, error) {
	if isNumber(name) {
		g, err := user.LookupGroupId(name)
		var unknown user.UnknownGroupIdError
		if errors.As(err, &unknown) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		name = g.Name
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/usr/bin/dscl", ".", "-read", "/Groups/"+name, "PrimaryGroupID", "GroupMembership").Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return groupFromDirectory(name, string(out)), nil
}

func isNumber(key string) bool {
	_, err := strconv.ParseUint(key, 10, 32)
	return err == nil
}
