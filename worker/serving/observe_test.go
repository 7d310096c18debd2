package serving

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"nixdaemon/protocol"
	"nixdaemon/protocol/serve"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
)

// opsSeen notes operations.
type opsSeen struct{ text strings.Builder }

func (o *opsSeen) OpBegan(op protocol.Op)            { fmt.Fprintf(&o.text, "%s ", op) }
func (o *opsSeen) OpEnded(op protocol.Op, err error) { fmt.Fprintf(&o.text, "%s %v\n", op, err) }

// brokenStore can do nothing.
type brokenStore struct{ worker.Store }

var errBroken = errors.New("broken")

func (brokenStore) ValidPaths(context.Context, []storepath.Path) ([]storepath.Path, error) {
	return nil, nil
}
func (brokenStore) Dump(context.Context, storepath.Path, io.Writer) error { return errBroken }

// TestObserved: each request is told of with how it ended.
func TestObserved(t *testing.T) {
	var seen opsSeen
	h := observedHandler{&handler{o: Options{Store: brokenStore{}}}, &seen}
	if _, err := h.ValidPaths(t.Context(), serve.ValidPathsRequest{}); err != nil {
		t.Error(err)
	}
	if err := h.Dump(t.Context(), storepath.Path{}, io.Discard); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
	const want = "QueryValidPaths QueryValidPaths <nil>\nNarFromPath NarFromPath broken\n"
	if got := seen.text.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
