package serving

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/serve"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// Options is what a conversation is had with. Every field must be set unless it
// says otherwise.
type Options struct {
	Store   worker.Store
	Builder worker.Builder
	// Roots are the conversation's temporary roots, which Serve closes.
	Roots worker.TempRoots
	// Settings are ours; a client's build options make a copy.
	Settings *settings.Settings
	// Write allows to change the store.
	Write bool
	// User and Client tell who asks; see session.Session.
	User   string
	Client uint64
	// Log receives what happens; it is told with Quiet when a build begins, after
	// which upstream shows errors and output of builds only.
	Log   activity.Sink
	Quiet func()
	// Observer is told of requests; nil if nobody wants to know.
	Observer worker.Observer
}

// Serve answers a client until it hangs up, or until something fails.
func Serve(ctx context.Context, stream io.ReadWriter, o Options) (err error) {
	defer func() { err = errors.Join(err, o.Roots.Close()) }()
	h := &handler{o: o}
	h.forward, _ = o.Store.(worker.Forwarder)
	h.use(o.Settings)
	var answers serve.Handler = h
	if o.Observer != nil {
		answers = observedHandler{h, o.Observer}
	}
	return serve.Serve(ctx, stream, answers, serve.Options{
		Dir: o.Store.Dir(), Write: o.Write, Features: worker.DerivationFeatures(o.Settings.ExperimentalFeatures),
	})
}

// handler is one conversation.
type handler struct {
	o       Options
	forward worker.Forwarder // the store if that is another daemon's, else nil
	sess    *session.Session
}

var _ serve.Handler = (*handler)(nil)

// use goes on with other settings.
func (h *handler) use(s *settings.Settings) {
	h.sess = &session.Session{
		User: h.o.User, Client: h.o.Client, Trusted: true, Settings: s, Log: h.o.Log, Roots: h.o.Roots,
	}
	if h.forward != nil {
		h.forward.Follow(h.sess)
	}
}

// ValidPaths implements serve.Handler.
func (h *handler) ValidPaths(ctx context.Context, req serve.ValidPathsRequest) ([]storepath.Path, error) {
	if req.Lock {
		if err := h.o.Roots.Add(ctx, req.Paths...); err != nil {
			return nil, err
		}
	}
	if req.Substitute {
		h.substitute(ctx, req.Paths)
	}
	return h.o.Store.ValidPaths(ctx, req.Paths)
}

// substitute makes valid what can be. Failures are warnings: what is valid
// afterwards is what counts (libstore/store-api.cc, substitutePaths).
func (h *handler) substitute(ctx context.Context, paths []storepath.Path) {
	var wanted []derivation.DerivedPath
	for _, p := range paths {
		if !p.IsDerivation() {
			wanted = append(wanted, derivation.DerivedPath{Path: p})
		}
	}
	if len(wanted) == 0 {
		return
	}
	missing, err := h.o.Builder.QueryMissing(ctx, h.sess, wanted)
	if err == nil && len(missing.WillSubstitute) > 0 {
		wanted = wanted[:0]
		for _, p := range missing.WillSubstitute {
			wanted = append(wanted, derivation.DerivedPath{Path: p})
		}
		err = h.o.Builder.BuildPaths(ctx, h.sess, wanted, derivation.BuildNormal)
	}
	if err != nil {
		text, _ := worker.ErrorText(err)
		h.o.Log.Message(activity.Warn, text)
	}
}

// PathInfo implements serve.Handler.
func (h *handler) PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error) {
	info, err := h.o.Store.PathInfo(ctx, p)
	var invalid *localstore.NotValidError
	if errors.As(err, &invalid) {
		return nil, nil
	}
	return info, err
}

// Dump implements serve.Handler.
func (h *handler) Dump(ctx context.Context, p storepath.Path, w io.Writer) error {
	err := h.o.Store.Dump(ctx, p, w)
	// Stores of this machine have other words for it (libstore/local-fs-store.cc, requireStoreObjectAccessor).
	if invalid, ok := errors.AsType[*localstore.NotValidError](err); ok && h.forward == nil {
		return fmt.Errorf("path '%s' is not a valid store path", invalid.Path)
	}
	return err
}

// unchecked adds without asking for signatures: who may write here could as
// well write to the store, or the daemon behind it does not believe us.
func (h *handler) unchecked() localstore.AddOptions {
	return localstore.AddOptions{
		DontCheckSigs: true, Optimise: h.sess.Settings.AutoOptimiseStore, Log: h.o.Log, Roots: h.o.Roots,
	}
}

// Import implements serve.Handler.
func (h *handler) Import(ctx context.Context, r *wire.Reader) error {
	_, err := h.o.Store.ImportPaths(ctx, r, h.unchecked())
	return err
}

// Add implements serve.Handler.
func (h *handler) Add(ctx context.Context, info *pathinfo.Info, nar io.Reader) error {
	return h.o.Store.AddNAR(ctx, info, nar, h.unchecked())
}

// configure takes on a client's options, for the rest of the conversation
// (nix-store.cc, getBuildSettings).
func (h *handler) configure(ctx context.Context, o serve.BuildOptions) error {
	s := h.sess.Settings.Clone()
	for _, wish := range h.wishes(ctx, o) {
		if err := s.Override(wish[0], wish[1]); err != nil {
			return err
		}
	}
	h.o.Quiet()
	h.use(s)
	return nil
}

// wishes are the settings that the options mean. A daemon that does not trust
// us is not told what it would only warn of. One that does not say whether it
// does (before 2.15) is told of a limit alone: who asked for one does not take
// a build for good that has gone beyond it, and may be warned.
func (h *handler) wishes(ctx context.Context, o serve.BuildOptions) [][2]string {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	wishes := [][2]string{
		{"substitute", "false"}, {"max-silent-time", number(o.MaxSilentTime)}, {"timeout", number(o.BuildTimeout)},
	}
	if o.Version.AtLeast(7) {
		wishes = append(wishes, [2]string{"keep-failed", strconv.FormatBool(o.KeepFailed)})
	}
	trust := protocol.Trusted
	if h.forward != nil {
		trust = h.forward.Trust(ctx)
	}
	if o.Version.AtLeast(2) && (trust == protocol.Trusted || trust == protocol.TrustUnknown && o.MaxLogSize != h.sess.Settings.MaxBuildLogSize) {
		wishes = append(wishes, [2]string{"max-build-log-size", number(o.MaxLogSize)})
	}
	if trust != protocol.Trusted {
		return wishes
	}
	wishes = append(wishes, [2]string{"keep-build-log", "false"})
	if o.Version.AtLeast(3) {
		wishes = append(wishes, [2]string{"run-diff-hook", "true"})
	}
	return wishes
}

// BuildPaths implements serve.Handler.
func (h *handler) BuildPaths(ctx context.Context, req serve.BuildPathsRequest) error {
	if err := h.configure(ctx, req.Options); err != nil {
		return err
	}
	err := h.o.Builder.BuildPaths(ctx, h.sess, req.Paths, derivation.BuildNormal)
	if err == nil || ctx.Err() != nil {
		return err
	}
	text, status := worker.ErrorText(err)
	return &serve.BuildFailure{Status: status, Message: text}
}

// BuildDerivation implements serve.Handler.
func (h *handler) BuildDerivation(ctx context.Context, req serve.BuildDerivationRequest) (derivation.BuildResult, error) {
	if err := h.configure(ctx, req.Options); err != nil {
		return derivation.BuildResult{}, err
	}
	return h.o.Builder.BuildDerivation(ctx, h.sess, req.DrvPath, req.Derivation, derivation.BuildNormal)
}
