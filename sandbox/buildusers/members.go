package buildusers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
)

// tryMembers takes the first member of the group that is free.
func (p *Pool) tryMembers(ctx context.Context, name string) (*Lease, error) {
	group, err := p.lookupGroup(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(group.Members) == 0 {
		return nil, fmt.Errorf("the build users group '%s' has no members", name)
	}
	for _, member := range group.Members {
		lease, err := p.tryMember(ctx, group, member)
		if lease != nil || err != nil {
			return lease, err
		}
	}
	return nil, ErrAllInUse
}

// tryMember returns nil without an error when the user is in use.
func (p *Pool) tryMember(ctx context.Context, group Group, name string) (*Lease, error) {
	user, err := p.accounts.User(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("the user '%s' in the group '%s' does not exist", name, group.Name)
	}
	if err != nil {
		return nil, err
	}
	// Never root, whoever we are: a builder with uid 0 would be no builder.
	if user.UID == 0 || int(user.UID) == os.Getuid() || int(user.UID) == os.Geteuid() {
		return nil, fmt.Errorf("the Nix user should not be a member of '%s'", group.Name)
	}
	lease, err := p.take("userpool", strconv.FormatUint(uint64(user.UID), 10))
	if lease == nil || err != nil {
		return nil, err
	}
	lease.UID, lease.GID, lease.Count = user.UID, group.GID, 1
	if lease.Groups, err = p.supplementary(ctx, user, group.GID); err != nil {
		return nil, errors.Join(err, lease.Release())
	}
	return lease, nil
}

func (p *Pool) lookupGroup(ctx context.Context, name string) (Group, error) {
	group, err := p.accounts.Group(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return Group{}, fmt.Errorf("the group '%s' specified in 'build-users-group' does not exist", name)
	case err != nil:
		return Group{}, err
	case group.GID == 0:
		return Group{}, fmt.Errorf("the group '%s' specified in 'build-users-group' is the superuser's", name)
	}
	group.Name = name
	return group, nil
}

func (p *Pool) supplementary(ctx context.Context, user User, gid uint32) ([]uint32, error) {
	groups, err := p.accounts.GroupsOf(ctx, user)
	if err != nil {
		return nil, fmt.Errorf("failed to get list of supplementary groups for '%s': %w", user.Name, err)
	}
	return slices.DeleteFunc(groups, func(g uint32) bool { return g == gid }), nil
}
