package build

import (
	"context"
	"errors"
	"slices"
	"sync"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// featureRecursiveNix is the system feature that gives a builder a daemon of its own (src/libstore/store-api.cc).
const featureRecursiveNix = "recursive-nix"

// Nested is a build as the daemon within it sees it: what the builder may see of the store, which is the closure of the
// inputs and what it has added or had built since, and how to have something built for it. Its methods may be called
// from any goroutine until the function that it was given to has returned.
type Nested struct {
	a       *attempt
	submits bool
	sess    *session.Session
	roots   interface{ Close() error }
	server  *nestedServer

	// begun is closed when the builder runs or will not; mount, if not nil, is then what makes a path appear to it.
	begun    chan struct{}
	beginOne sync.Once
	mount    func(source, target string) error
	// adding is held while paths are made to appear, each once.
	adding sync.Mutex

	mu        sync.Mutex
	memory    int64 // of requests under way
	added     map[storepath.Path]struct{}
	outputs   map[outputKey]struct{}
	submitted map[string]storepath.Path
}

// outputKey is one of the names under which a realisation is known.
type outputKey struct{ drv, output string }

func outputKeys(id pathinfo.DrvOutput) []outputKey {
	var keys []outputKey
	if !id.DrvHash.IsZero() {
		keys = append(keys, outputKey{id.DrvHash.String(), id.Output})
	}
	if !id.DrvPath.IsZero() {
		keys = append(keys, outputKey{id.DrvPath.Base(), id.Output})
	}
	return keys
}

// nest gives the builder a daemon if its derivation wants one, and tells it where (unix/build/derivation-builder.cc,
// startDaemon).
func (a *attempt) nest(env *environment) error {
	submits := slices.Contains(a.j.options.RequiredSystemFeatures, derivation.FeatureBuilderRPC)
	if !submits && !slices.Contains(a.j.options.RequiredSystemFeatures, featureRecursiveNix) {
		return nil
	}
	needed := settings.RecursiveNix
	if submits {
		needed = settings.DynamicDerivations
	}
	if err := a.set.ExperimentalFeatures.Require(needed); err != nil {
		return err
	}
	switch {
	case submits && (!a.kind.IsCA || a.kind.IsImpure):
		return errorf("The builder-rpc-v0 feature may only be used with content-addressing derivations")
	case a.o.Nested == nil:
		return errors.New("serve a builder: this scheduler has no daemon for builders")
	}
	roots := a.store.NewTempRoots()
	n := &Nested{
		a: a, submits: submits, roots: roots, begun: make(chan struct{}),
		added: make(map[storepath.Path]struct{}), outputs: make(map[outputKey]struct{}), submitted: make(map[string]storepath.Path),
	}
	user, client := a.s.chargedTo(a.j)
	n.sess = &session.Session{User: user, Client: client, Settings: a.set, Log: nestedLog{&a.j.feed}, Roots: roots}
	a.nested = n
	var err error
	n.server, err = a.serveNested(n)
	env.vars["NIX_REMOTE"] = "unix://" + a.tmp.inside + "/" + nestedSocket
	return err
}

// chargedTo is for whom a running job builds: builds within it are for the same.
func (s *Scheduler) chargedTo(j *job) (user string, client uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for j.charged == nil && j.lender != nil {
		j = j.lender
	}
	if j.charged == nil {
		return "", 0
	}
	return j.charged.user.name, j.charged.id
}

// begin notes that the builder runs. Without a process it never will.
func (n *Nested) begin(p *sandbox.Process, spec *sandbox.Spec) {
	if n == nil {
		return
	}
	n.beginOne.Do(func() {
		// Who submits its outputs need not see what it adds (upstream's shouldModifySandbox).
		if p != nil && spec.Isolation != nil && !n.submits {
			n.mount = p.Mount
		}
		close(n.begun)
	})
}

// stop ends the connections of the builder and waits for what was done for them.
func (n *Nested) stop() {
	if n != nil && n.server != nil {
		n.server.stop()
	}
}

// close is stop, and gives up what was kept from being collected for the build.
func (n *Nested) close() {
	if n == nil {
		return
	}
	n.stop()
	n.a.complain("drop temporary roots of a builder", n.roots.Close())
}

// visible adds what the builder has added to a sorted set.
func (n *Nested) visible(inputs []storepath.Path) []storepath.Path {
	all := slices.Clone(inputs)
	if n == nil {
		return all
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for p := range n.added {
		all = append(all, p)
	}
	return storepath.SortUnique(all)
}

// Submits tells that the builder says itself which paths its outputs are (builder-rpc-v0).
func (n *Nested) Submits() bool { return n.submits }

// Session is for whom the daemon works: who asked for the build, with their settings. What happens is told to all who
// wait for the build.
func (n *Nested) Session() *session.Session { return n.sess }

// Log is the session's log.
func (n *Nested) Log() activity.Sink { return n.sess.Log }

// maxNestedMemory bounds what the requests of one builder claim together, in bytes: one large one.
const maxNestedMemory = 256 << 20

// Take claims memory for a request, if there is so much left for the builder; Give gives it back.
func (n *Nested) Take(bytes int64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if bytes > maxNestedMemory-n.memory {
		return false
	}
	n.memory += bytes
	return true
}

// Give gives memory back.
func (n *Nested) Give(bytes int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.memory -= bytes
}

// Inputs is the closure of the build's inputs, sorted. It is shared: do not modify it.
func (n *Nested) Inputs() []storepath.Path { return n.a.inputs }

// Paths are all that the builder may see, sorted.
func (n *Nested) Paths() []storepath.Path { return n.visible(n.a.inputs) }

// MayUse tells whether the builder may see a path.
func (n *Nested) MayUse(p storepath.Path) bool {
	if storepath.Contains(n.a.inputs, p) {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, added := n.added[p]
	return added
}

// KnowsOutput tells whether an output was built for the builder.
func (n *Nested) KnowsOutput(id pathinfo.DrvOutput) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, key := range outputKeys(id) {
		if _, known := n.outputs[key]; known {
			return true
		}
	}
	return false
}

// NewRefScanner looks for everything that the builder may see now.
func (n *Nested) NewRefScanner() localstore.RefScanner { return newRefScanner(n.Paths()) }

// Add lets the builder see valid paths, which its outputs may then refer to.
func (n *Nested) Add(ctx context.Context, paths ...storepath.Path) error {
	select {
	case <-n.begun:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	n.adding.Lock()
	defer n.adding.Unlock()
	paths = storepath.SortUnique(slices.DeleteFunc(slices.Clone(paths), n.MayUse))
	if len(paths) == 0 {
		return nil
	}
	if err := n.sess.Roots.Add(ctx, paths...); err != nil {
		return err
	}
	for _, p := range paths {
		if err := n.show(p); err != nil {
			return err
		}
	}
	return nil
}

func (n *Nested) show(p storepath.Path) error {
	if n.mount != nil {
		if err := n.mount(n.a.store.RealPath(p), n.a.dir.Print(p)); err != nil {
			n.a.complain("mount "+p.Base(), err)
			return errorf("could not add path '%s' to sandbox", n.a.dir.Print(p))
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.added[p] = struct{}{}
	return nil
}

// BuildPathsWithResults is that of the [Scheduler]. The builder may then see what was built and all that it needs
// (libstore/restricted-store.cc, buildPathsWithResults). What may be asked for is for the caller to decide.
func (n *Nested) BuildPathsWithResults(ctx context.Context, paths []derivation.DerivedPath) ([]derivation.KeyedBuildResult, error) {
	r, err := n.a.s.newNestedRequest(ctx, n.sess, n.a.j)
	if err != nil {
		return nil, err
	}
	defer r.end()
	results, err := r.withResults(paths, derivation.BuildNormal)
	if err != nil {
		return nil, err
	}
	var made []storepath.Path
	for _, res := range results {
		for _, real := range res.BuiltOutputs {
			made = append(made, real.OutPath)
		}
	}
	closure, err := n.a.store.Closure(ctx, made, localstore.ClosureOptions{})
	if err != nil {
		return nil, err
	}
	if err := n.Add(ctx, closure...); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, res := range results {
		for _, real := range res.BuiltOutputs {
			for _, key := range outputKeys(real.ID) {
				n.outputs[key] = struct{}{}
			}
		}
	}
	return results, nil
}

// newNestedRequest makes a request of a builder. A scheduler that closes still takes it, since it waits for the outer
// build, which may need it to end.
func (s *Scheduler) newNestedRequest(ctx context.Context, sess *session.Session, outer *job) (*request, error) {
	if s.base.Err() != nil {
		return nil, ErrClosed
	}
	s.work.Add(1) // the outer job is counted, so nobody has done waiting
	r := s.makeRequest(ctx, sess)
	r.outer = outer
	return r, nil
}

// QueryMissing is that of the [Scheduler].
func (n *Nested) QueryMissing(ctx context.Context, paths []derivation.DerivedPath) (Missing, error) {
	return n.a.s.QueryMissing(ctx, n.sess, paths)
}

// OutputMap is that of the [Scheduler], with the experimental features of the build.
func (n *Nested) OutputMap(ctx context.Context, drv storepath.Path) (map[string]storepath.Path, error) {
	return n.a.s.outputMap(ctx, n.a.set.ExperimentalFeatures, drv)
}

// nestedLog tells those who wait for a build of builds within it. Their lines are not the end of the outer one's log.
type nestedLog struct{ *feed }

// Result passes a result on.
func (l nestedLog) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	l.result(id, kind, fields, true)
}
