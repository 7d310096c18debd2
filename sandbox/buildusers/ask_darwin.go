package buildusers

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"os/user"
)

// askSystem asks the directory service, which has all real accounts on macOS. It returns the entry as a line of the
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
	u, err := user.Lookup(name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s:*:%s:%s:::", name, u.Uid, u.Gid), nil
}

func askGroup(ctx context.Context, name string) (string, error) {
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
