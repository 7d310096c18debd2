package roots

import (
	"context"
	"fmt"
	"os"
	"slices"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
)

// Censored is the label that stands for those that not everybody may see.
const Censored = "{censored}"

// Roots are store paths with the labels of what keeps each: file names, or words in braces. The labels are sorted.
type Roots map[storepath.Path][]string

// Options say where to look and how much to tell.
type Options struct {
	// Dir is the directory that store paths are printed with.
	Dir storepath.Dir
	// StateDir holds gcroots, profiles and temproots.
	StateDir string
	// Valid gives those of the paths that are valid. Permanent and runtime roots count only if they are.
	Valid func(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error)
	// InProcess gives temporary roots that this process knows of without a file; nil means that there are none.
	InProcess func() ([]storepath.Path, error)
	// Censor replaces the labels of runtime and temporary roots.
	Censor bool
	// Log receives what is skipped or removed; nil drops it.
	Log activity.Sink
	// HelperSocket is where a program listens that tells what running programs use (store parameter use-roots-daemon);
	// "" is for finding out by ourselves.
	HelperSocket string
	// ProcDir is the process file system; zero means /proc.
	ProcDir string
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = activity.Discard{}
	}
	if o.ProcDir == "" {
		o.ProcDir = "/proc"
	}
	return o
}

// Find gives the roots of all kinds.
func Find(ctx context.Context, o Options) (Roots, error) {
	all := make(Roots)
	for _, kind := range []func(context.Context, Options) (Roots, error){Permanent, Runtime, Temporary} {
		some, err := kind(ctx, o)
		if err != nil {
			return nil, err
		}
		all.merge(some)
	}
	return all, nil
}

func (r Roots) add(p storepath.Path, label string) {
	labels := r[p]
	if i, found := slices.BinarySearch(labels, label); !found {
		r[p] = slices.Insert(labels, i, label)
	}
}

func (r Roots) merge(other Roots) {
	for p, labels := range other {
		for _, label := range labels {
			r.add(p, label)
		}
	}
}

// candidate is a root if its target is valid.
type candidate struct {
	target storepath.Path
	label  string
	// text is the link's own, for the message about an invalid one; "" for those that are silently dropped.
	text string
}

// check asks for the validity of all targets at once: one by one would cost most of the time.
func (o *Options) check(ctx context.Context, all []candidate) (Roots, error) {
	targets := make([]storepath.Path, len(all))
	for i := range all {
		targets[i] = all[i].target
	}
	valid, err := o.Valid(ctx, storepath.SortUnique(targets))
	if err != nil {
		return nil, fmt.Errorf("look up roots: %w", err)
	}
	roots := make(Roots, len(valid))
	for _, p := range valid {
		roots[p] = nil
	}
	for _, c := range all {
		if _, ok := roots[c.target]; ok {
			roots.add(c.target, c.label)
		} else if c.text != "" {
			o.info("skipping invalid root from \"%s\" to \"%s\"", c.label, c.text)
		}
	}
	return roots, nil
}

func (o *Options) info(format string, args ...any) {
	o.Log.Message(activity.Info, fmt.Sprintf(format, args...))
}

// storePath gives the store path that a file name is, or is beneath.
func (o *Options) storePath(name string) (storepath.Path, bool) {
	p, _, err := o.Dir.ParseInside(name)
	return p, err == nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
