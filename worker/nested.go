package worker

import (
	"context"
	"fmt"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/settings"
)

// Nested is what a builder's requests need besides a Store. A connection that
// has one is served differently (libstore/daemon.cc, processConnection): the
// client's settings are those of whoever asked for the build, and what happens
// meanwhile is told to the latter.
type Nested interface {
	// Submits tells that the builder hands its outputs over by OpSubmitOutput
	// and may ask for little else (upstream's builder-rpc-v0).
	Submits() bool
	// Log receives what the builder's requests would show an ordinary client.
	Log() activity.Sink
	// MayDump refuses a path whose contents the builder may not have.
	MayDump(p storepath.Path) error
	// NewRefScanner looks for all that the builder can see.
	NewRefScanner() localstore.RefScanner
	// SubmitOutput says which path is an output of the build.
	SubmitOutput(ctx context.Context, p *derivation.SingleDerivedPath, output string) error
}

// offered is what the client can choose from.
func offered(n Nested) protocol.Version {
	switch {
	case n == nil:
		return protocol.DaemonVersion()
	case n.Submits():
		return protocol.BuilderRPCVersion()
	}
	return protocol.NestedVersion()
}

// log is where requests tell of what they do.
func (c *conn) log() activity.Sink {
	if c.o.Nested != nil {
		return c.o.Nested.Log()
	}
	return c.tunnel
}

// nestedHandlers are the requests that builders alone can make, and those that
// mean something else when they do.
var nestedHandlers = map[protocol.Op]handler{
	protocol.OpSetOptions:         (*conn).ignoreOptions,
	protocol.OpSubmitOutput:       (*conn).submitOutput,
	protocol.OpAddToStoreScanning: (*conn).addToStoreScanning,
}

// submitting are all requests that a builder may make that submits its
// outputs: what adds, and two that upstream's client makes on the way.
var submitting = map[protocol.Op]bool{
	protocol.OpAddToStore:         true,
	protocol.OpAddMultipleToStore: true,
	protocol.OpAddToStoreNar:      true,
	protocol.OpAddToStoreScanning: true,
	protocol.OpSubmitOutput:       true,
	protocol.OpAddTempRoot:        true,
	protocol.OpIsValidPath:        true,
}

func nestedHandler(op protocol.Op, submits bool) (handler, error) {
	if submits && !submitting[op] {
		return nil, refusal(fmt.Sprintf("Operation %s%d%s not allowed inside derivation", magenta, op, normal))
	}
	if op == protocol.OpSubmitOutput && !submits {
		return nil, errUnknownOp(op)
	}
	if handle := nestedHandlers[op]; handle != nil {
		return handle, nil
	}
	handle, known := handlers[op]
	if !known {
		return nil, errUnknownOp(op)
	}
	return handle, nil
}

// ignoreOptions reads settings that a builder has no say in.
func (c *conn) ignoreOptions(context.Context) error {
	if _, err := c.in.Options(); err != nil {
		return err
	}
	return c.work(func() error { return nil }, nil)
}

const refuseScanning refusal = "Adding to store with scanning was requested, but not supported in negotiated protocol"

func (c *conn) addToStoreScanning(ctx context.Context) error {
	req, err := c.in.AddToStoreScanning()
	if err != nil {
		return err
	}
	if err := c.sess.Settings.ExperimentalFeatures.Require(settings.DynamicDerivations); err != nil {
		return err
	}
	if !c.in.Version.Has(protocol.FeatureAddToStoreScanning) {
		return refuseScanning
	}
	var info *pathinfo.Info
	return c.work(func() error {
		return c.framed(ctx, textDumpEnd, func(data *wire.FramedReader) error {
			method, algo, err := req.Method(c.in.Features)
			if err != nil {
				return err
			}
			info, err = c.o.Store.AddDump(ctx, localstore.DumpSpec{
				Name: req.Name, Method: method, Algo: algo, Scan: c.o.Nested.NewRefScanner(),
			}, data, c.addOptions())
			return err
		})
	}, func() { c.out.Info(info) })
}

// submitOutput looks at the feature before it reads, as upstream does: without
// it the connection ends in any case.
func (c *conn) submitOutput(ctx context.Context) error {
	if err := c.sess.Settings.ExperimentalFeatures.Require(settings.DynamicDerivations); err != nil {
		return err
	}
	req, err := c.in.SubmitOutput()
	if err != nil {
		return err
	}
	return c.work(func() error { return c.o.Nested.SubmitOutput(ctx, req.Path, req.Output) }, c.one)
}
