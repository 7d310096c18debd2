package worker

import (
	"testing"

	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
)

// Clients that know of dead referrers delete given paths whatever keep-outputs and keep-derivations say.
func TestSettingsOfSpecificDeletion(t *testing.T) {
	w := newWorld(t)
	w.set.KeepOutputs, w.set.KeepDerivations = true, true
	knows := protocol.Version{Number: protocol.Minor(38), Features: []protocol.Feature{protocol.FeatureDeleteDeadSpecificReferrers}}
	for _, tt := range []struct {
		name    string
		version protocol.Version
		req     protocol.GCRequest
		want    bool
	}{
		{"old client, given paths", minor(38), protocol.GCRequest{Action: protocol.GCDeleteSpecific, Paths: []storepath.Path{w.file.Path}}, true},
		{"new client, given paths", knows, protocol.GCRequest{Action: protocol.GCDeleteSpecific, Paths: []storepath.Path{w.file.Path}}, false},
		{"new client, whole store", knows, protocol.GCRequest{Action: protocol.GCDeleteDead, WholeStore: true}, true},
	} {
		w.collector.keeps = nil
		p := w.dial(true, tt.version)
		p.send(protocol.OpCollectGarbage, func(to *protocol.Writer) { to.GC(tt.req) })
		p.mustWork()
		if len(w.collector.keeps) != 1 || w.collector.keeps[0] != [2]bool{tt.want, tt.want} {
			t.Errorf("%s: got %v, want %v", tt.name, w.collector.keeps, tt.want)
		}
	}
	if !w.set.KeepOutputs || !w.set.KeepDerivations {
		t.Error("the daemon's own settings were changed")
	}
}
