package worker

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
)

// deedList writes down what it is told of.
type deedList struct {
	mu    sync.Mutex
	deeds []string
}

func (w *deedList) audit(p Privilege) {
	text := string(p.Action)
	if len(p.Subject) > 0 {
		text += " of " + strings.Join(p.Subject, ", ")
	}
	if p.Refused {
		text += " refused"
	} else if p.Err != nil {
		text += " failed"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deeds = append(w.deeds, text)
}

// take gives what was noted since the last time.
func (w *deedList) take() (deeds []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	deeds, w.deeds = w.deeds, nil
	return deeds
}

// TestAudit has trusted and other clients do what is privileged. What is
// told is there when the client has its answer.
func TestAudit(t *testing.T) {
	w := newWorld(t)
	seen := &deedList{}
	w.audit = seen.audit
	options := func(overrides ...protocol.Override) func(*protocol.Writer) {
		return func(to *protocol.Writer) { to.Options(protocol.ClientOptions{Overrides: overrides}) }
	}
	file := w.store.Dir().Print(w.file.Path)
	given := somePath("x.drv")
	for _, tt := range []struct {
		name               string
		op                 protocol.Op
		request            func(*protocol.Writer)
		trusted, untrusted string
	}{
		{"harmless settings", protocol.OpSetOptions, options(protocol.Override{Name: "timeout", Value: "3"}), "", ""},
		{"settings", protocol.OpSetOptions, options(protocol.Override{Name: "netrc-file", Value: "/secret"}, protocol.Override{Name: "require-sigs", Value: "false"}),
			"override-settings of netrc-file, require-sigs = false", ""},
		{"normal build", protocol.OpBuildPaths, func(to *protocol.Writer) { buildIn(derivation.BuildNormal)(w, to) }, "", ""},
		{"repair", protocol.OpBuildPaths, func(to *protocol.Writer) { buildIn(derivation.BuildRepair)(w, to) }, "repair of " + file, "repair of " + file + " refused"},
		{"repair with results", protocol.OpBuildPathsWithResults, func(to *protocol.Writer) { buildIn(derivation.BuildRepair)(w, to) }, "repair of " + file, "repair of " + file + " refused"},
		{"given derivation", protocol.OpBuildDerivation, func(to *protocol.Writer) { buildGiven(theInputAddressed, derivation.BuildNormal)(w, to) },
			"build-given-derivation of " + w.store.Dir().Print(given), "build-given-derivation of " + w.store.Dir().Print(given) + " refused"},
		{"verify", protocol.OpVerifyStore, func(to *protocol.Writer) { to.Bool(false); to.Bool(false) }, "verify", "verify"},
		{"verify and repair", protocol.OpVerifyStore, func(to *protocol.Writer) { to.Bool(false); to.Bool(true) }, "repair", "repair refused"},
		{"optimise", protocol.OpOptimiseStore, nil, "optimise", "optimise"},
		{"collect", protocol.OpCollectGarbage, func(to *protocol.Writer) {
			to.GC(protocol.GCRequest{Action: protocol.GCDeleteDead, WholeStore: true})
		}, "collect-garbage", "collect-garbage"},
		{"tell what is dead", protocol.OpCollectGarbage, func(to *protocol.Writer) {
			to.GC(protocol.GCRequest{Action: protocol.GCReturnDead, WholeStore: true})
		}, "", ""},
		{"ignore liveness", protocol.OpCollectGarbage, func(to *protocol.Writer) {
			to.GC(protocol.GCRequest{Action: protocol.GCDeleteDead, WholeStore: true, IgnoreLiveness: true})
		}, "collect-garbage refused", "collect-garbage refused"},
		{"log", protocol.OpAddBuildLog, func(to *protocol.Writer) { to.String(w.drv.Path.Base()); frames("words")(to) },
			"add-build-log of " + w.store.Dir().Print(w.drv.Path), "add-build-log of " + w.store.Dir().Print(w.drv.Path) + " refused"},
		{"realisation", protocol.OpRegisterDrvOutput, func(to *protocol.Writer) { to.RegisterRealisation(realisationOf(w, to.Version)) },
			"register-realisation of " + realisationOf(w, minor(38)).ID.String() + ", " + w.store.Dir().Print(realisationOf(w, minor(38)).OutPath), ""},
		{"permanent root", protocol.OpAddPermRoot, func(to *protocol.Writer) { aFile(w, to); to.String(w.store.StateDir() + "/gcroots/x") },
			"add-permanent-root of " + w.store.StateDir() + "/gcroots/x, " + file, "add-permanent-root refused"},
	} {
		for _, trusted := range []bool{true, false} {
			p := w.dial(trusted, minor(38))
			p.send(tt.op, tt.request)
			p.finish(nil)
			want := tt.untrusted
			if trusted {
				want = tt.trusted
			}
			deeds := seen.take()
			if got := strings.Join(deeds, "; "); got != want {
				t.Errorf("%s, trusted %v: got %q, want %q", tt.name, trusted, got, want)
			}
			p.end()
			seen.take()
		}
	}
}

// TestAuditOfImports: additions are audited where signatures would be looked at
// and are not.
func TestAuditOfImports(t *testing.T) {
	w := newWorld(t)
	seen := &deedList{}
	w.audit = seen.audit
	for _, trusted := range []bool{true, false} {
		for i, dontCheck := range []bool{true, false} {
			archive := archiveOf(fmt.Sprint(trusted, i))
			info := w.infoOf(fmt.Sprintf("several-%v-%d", trusted, i), archive, true)
			p := w.dial(trusted, minor(38))
			p.send(protocol.OpAddMultipleToStore, func(to *protocol.Writer) {
				to.Bool(false)
				to.Bool(dontCheck)
				frames(entries(w, 1, addition{info, archive}))(to)
			})
			p.mustWork()
			deeds := seen.take()
			want := []string(nil)
			if trusted && dontCheck {
				want = []string{"add-unchecked of " + w.store.Dir().Print(info.Path)}
			}
			if diff := cmp.Diff(want, deeds); diff != "" {
				t.Errorf("trusted %v, unchecked %v: %s", trusted, dontCheck, diff)
			}
			p.end()
		}
	}
}
