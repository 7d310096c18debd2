package buildusers

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// trySlots takes the first slot of the range that is free. Upstream's daemon dies of a range that check refuses.
func (p *Pool) trySlots(ctx context.Context, group string, r Range) (*Lease, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	for slot := range r.IDs / SlotSize {
		lease, err := p.take("userpool2", "slot-"+strconv.FormatUint(uint64(slot), 10))
		if err != nil {
			return nil, err
		}
		if lease == nil {
			continue
		}
		lease.UID, lease.Count = r.First+slot*SlotSize, r.Count
		if err := p.settle(ctx, lease, group, r.Namespace); err != nil {
			return nil, errors.Join(err, lease.Release())
		}
		return lease, nil
	}
	return nil, ErrAllInUse
}

func (r Range) check() error {
	switch {
	case r.First == 0:
		return errors.New("setting 'start-id' must not be 0: ids of builds would include the superuser's")
	case r.IDs%SlotSize != 0:
		return fmt.Errorf("setting 'id-count' is %d, which is not a multiple of %d", r.IDs, SlotSize)
	case uint64(r.First)+uint64(r.IDs) > math.MaxUint32:
		return fmt.Errorf("settings 'start-id' (%d) and 'id-count' (%d) exceed the range of user ids", r.First, r.IDs)
	case r.Count == 0 || r.Count > SlotSize:
		return fmt.Errorf("a build cannot have %d user ids, only 1 to %d", r.Count, SlotSize)
	}
	return nil
}

// settle makes sure that the first id is nobody's, and finds the group.
func (p *Pool) settle(ctx context.Context, l *Lease, group string, namespace bool) error {
	user, err := p.accounts.UserByID(ctx, l.UID)
	if err == nil {
		return fmt.Errorf("auto-allocated UID %d clashes with existing user account '%s'", l.UID, user.Name)
	}
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	if namespace {
		l.GID = l.UID
		return nil
	}
	g, err := p.lookupGroup(ctx, group)
	l.GID = g.GID
	return err
}
