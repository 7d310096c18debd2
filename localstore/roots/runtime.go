package roots

import (
	"context"
	"fmt"

	"nixdaemon/protocol/activity"
)

// Runtime gives the valid paths that running programs use, as far as the system, or Options.HelperSocket, tells us.
func Runtime(ctx context.Context, o Options) (Roots, error) {
	o = o.withDefaults()
	if o.HelperSocket != "" {
		found, err := o.helper(ctx)
		if err != nil {
			return nil, err
		}
		return o.additional(ctx, found)
	}
	uses, err := o.runtime(ctx)
	if err != nil {
		return nil, fmt.Errorf("find runtime roots: %w", err)
	}
	found := make([]candidate, 0, len(uses))
	for u := range uses {
		if p, ok := o.storePath(u.target); ok {
			found = append(found, candidate{target: p, label: u.label})
		}
	}
	return o.additional(ctx, found)
}

// additional is check with a word about each root, since nobody sees for how short a time a program used it.
func (o *Options) additional(ctx context.Context, found []candidate) (Roots, error) {
	roots, err := o.check(ctx, found)
	for p := range roots {
		o.Log.Message(activity.Debug, fmt.Sprintf("got additional root '%s'", o.Dir.Print(p)))
	}
	return roots, err
}

// use says that something uses a file name within the store.
type use struct{ target, label string }

// uses collects them: a program has the same file mapped many times.
type uses map[use]struct{}

// add takes the label in parts, since hits are few.
func (all uses) add(o *Options, target []byte, label ...string) {
	u := use{target: string(target)}
	for _, part := range label {
		u.label += part
	}
	if o.Censor {
		u.label = Censored
	}
	all[u] = struct{}{}
}
