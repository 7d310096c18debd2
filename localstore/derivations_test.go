package localstore

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// TestForgedInputOfDerivation has a builder put a file of its own where a derivation is going to be, and a client add
// another derivation that needs it. What is forged must not decide where outputs belong, now or later.
func TestForgedInputOfDerivation(t *testing.T) {
	s := open(t, nil)
	text, _ := testDerivation(t, s, "dep")
	ca := storepath.ContentAddress{Method: storepath.MethodText, Hash: nixhash.Of(nixhash.SHA256, text)}
	dep, err := s.Dir().FromContentAddress("dep.drv", ca, storepath.References{})
	if err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(text, "/bin/sh", "/bin/xx", 1)
	real, _ := derivation.ParseFile(s.Dir(), dep, text, derivation.Features{})
	if forged == text || real == nil {
		t.Fatal("nothing was forged in", text)
	}
	user := func(input string) string {
		drv := &derivation.Derivation{BasicDerivation: derivation.BasicDerivation{
			Name: "user", Platform: "x", Builder: "/bin/sh", Env: map[string]string{"out": ""},
			Outputs: map[string]derivation.Output{"out": {Kind: derivation.Deferred}},
		}, InputDrvs: map[storepath.Path]*derivation.InputOutputs{dep: {Outputs: []string{"out"}}}}
		h := derivation.Hasher{Dir: s.Dir(), Load: func(context.Context, storepath.Path) (*derivation.Derivation, error) {
			return derivation.ParseFile(s.Dir(), dep, input, derivation.Features{})
		}}
		if err := h.FillOutputPaths(ctx, drv); err != nil {
			t.Fatal(err)
		}
		text, err := drv.ATerm(s.Dir())
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if err := os.WriteFile(s.RealPath(dep), []byte(forged), 0o444); err != nil {
		t.Fatal(err)
	}
	spec := DumpSpec{Name: "user.drv", Method: storepath.MethodText, Algo: nixhash.SHA256}
	if _, err := s.AddDump(ctx, spec, strings.NewReader(user(forged)), AddOptions{}); !errors.As(err, new(*NotValidError)) {
		t.Errorf("a derivation with a forged input: %v", err)
	}
	if _, err := s.ReadDerivation(ctx, dep); !errors.As(err, new(*NotValidError)) {
		t.Errorf("what is not valid was read: %v", err)
	}
	if got := addText(t, s, "dep.drv", text); got.Path != dep {
		t.Fatal(got.Path)
	}
	if _, err := s.AddDump(ctx, spec, strings.NewReader(user(text)), AddOptions{}); err != nil {
		t.Errorf("the real one is refused afterwards: %v", err)
	}
}
