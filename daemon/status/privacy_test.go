package status

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// full is a server with something of everything, most of it of bob.
func full() Server {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return Server{
		PID: 10, Release: "1", State: "serving", Since: began, Slots: 2, Running: 2,
		Builds: []Build{
			{ID: "10-1", Derivation: "/nix/store/a.drv", State: Running, Began: &began, Machine: "ssh://bob@farm", LastLine: "secret of bob", Phase: "buildPhase", Users: []string{"bob", "carol"}},
			{ID: "10-2", Derivation: "/nix/store/b.drv", State: Running, LastLine: "shared", Machine: "ssh://farm", Users: []string{"alice", "bob"}},
		},
		Waiting:       []Wait{{Kind: KindBuild, What: "/nix/store/g.drv", Reason: "inputs", Users: []string{"bob", "alice"}}, {Kind: KindBuild, What: "/nix/store/h.drv", Users: []string{"carol"}, Others: 1}},
		Requests:      []Request{{User: "alice", Client: 1}, {User: "bob", Client: 2}, {User: "carol", Client: 3}},
		Substitutions: []Substitution{{Path: "/nix/store/c", Cache: "file:///home/bob/cache", User: "bob"}, {Path: "/nix/store/d", Cache: "https://cache", User: "alice"}},
		Collection:    &Collection{Action: "delete-dead", For: "bob"},
		Connections:   []Connection{{Client: 1, User: "alice", PID: 5}, {Client: 2, User: "bob", PID: 6}, {Client: 3, User: "carol"}},
		Recent: []Ended{
			{Kind: KindBuild, What: "/nix/store/e.drv", Outcome: Failed, Error: "bob's fault", Users: []string{"bob"}},
			{Kind: KindBuild, What: "/nix/store/f.drv", Outcome: Failed, Error: "mine", Users: []string{"bob", "alice"}},
		},
	}
}

func TestPrivacy(t *testing.T) {
	all := full()
	got := all.For(Viewer{User: "alice"})
	if diff := cmp.Diff(full(), all); diff != "" {
		t.Errorf("the original has changed: %s", diff)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, private := range []string{"bob", "carol", "secret", "farm@", "fault"} {
		if strings.Contains(string(text), private) {
			t.Errorf("alice sees %q: %s", private, text)
		}
	}
	want := full()
	want.Builds[0].LastLine, want.Builds[0].Machine, want.Builds[0].Users, want.Builds[0].Others = "", "another machine", []string{}, 2
	want.Builds[1].Users, want.Builds[1].Others = []string{"alice"}, 1
	want.Waiting[0].Users, want.Waiting[0].Others = []string{"alice"}, 1
	want.Waiting[1].Users, want.Waiting[1].Others = []string{}, 2
	want.Requests, want.OtherRequests = want.Requests[:1], 2
	want.Substitutions[0].Cache, want.Substitutions[0].User = "", ""
	want.Collection.For = ""
	want.Connections, want.OtherConnections = want.Connections[:1], 2
	want.Recent[0].Error, want.Recent[0].Users = "", nil
	want.Recent[1].Users = []string{"alice"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("alice sees (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(full(), all.For(Viewer{User: "root", All: true})); diff != "" {
		t.Errorf("root sees (-want +got):\n%s", diff)
	}
}

func TestJoin(t *testing.T) {
	now := time.Now()
	older, newer := Server{PID: 2, Since: now.Add(-time.Hour)}, Server{PID: 1, Since: now}
	s := Join(now, older, newer)
	if s.Version != 1 || len(s.Servers) != 2 || s.Servers[0].PID != 1 {
		t.Errorf("got %+v", s)
	}
	if text, err := json.Marshal(Join(now)); err != nil || !strings.Contains(string(text), `"servers":[]`) {
		t.Errorf("%s, %v", text, err)
	}
}

// TestJSONForm pins the form down: a member may be added here, none may change under this version.
func TestJSONForm(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	text, err := json.Marshal(Join(began, Server{
		PID: 1, Release: "r", State: "serving", Since: began, Memory: 1, Slots: 2, Running: 1,
		Builds:  []Build{{ID: "1-1", Derivation: "d", Mode: "check", State: "running", Reason: "x", Since: began, Queued: began, Began: &began, Machine: "m", Phase: "p", LastLine: "l", LogSize: 3, CPUSeconds: 1.5, Memory: 4, Processes: 2, Users: []string{"u"}, Others: 1}},
		Waiting: []Wait{{Kind: "build", What: "w", Reason: "inputs", Open: 2, For: []Cause{{"substitution", "x", "running"}}, Users: []string{"u"}, Others: 1}}, MoreWaiting: 3, Problem: "p",
		Requests: []Request{{User: "u", Client: 1, Since: began, Builds: Count{1, 2, 3, 4}}}, OtherRequests: 1,
		Substitutions: []Substitution{{Path: "s", Cache: "c", Done: 1, Size: 2, Since: began, User: "u"}},
		Collection:    &Collection{Action: "a", Step: "s", Since: began, For: "u", Dead: 1, Deleted: 2, Freed: 3, MaxFreed: 4},
		Connections:   []Connection{{Client: 1, User: "u", PID: 2, Trusted: true, Since: began, Operation: "o", Began: &began, Operations: 3}}, OtherConnections: 1,
		Recent: []Ended{{Kind: "build", What: "w", Outcome: "failed", Error: "e", Began: began, Ended: began, Bytes: 1, Users: []string{"u"}}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	const at = `"2026-01-02T03:04:05Z"`
	want := strings.NewReplacer("\n", "", "AT", at).Replace(`{"version":1,"time":AT,"servers":[{"pid":1,"release":"r","state":"serving","since":AT,"problem":"p","memory":1,"slots":2,"running":1,
"builds":[{"id":"1-1","derivation":"d","mode":"check","state":"running","reason":"x","since":AT,"queued":AT,"began":AT,"machine":"m","phase":"p","lastLine":"l","logSize":3,"cpuSeconds":1.5,"memory":4,"processes":2,"users":["u"],"others":1}],
"waiting":[{"kind":"build","what":"w","reason":"inputs","open":2,"for":[{"kind":"substitution","what":"x","state":"running"}],"users":["u"],"others":1}],"moreWaiting":3,
"requests":[{"user":"u","client":1,"since":AT,"builds":{"done":1,"open":2,"running":3,"failed":4},"substitutions":{"done":0,"open":0,"running":0,"failed":0}}],"otherRequests":1,
"substitutions":[{"path":"s","cache":"c","done":1,"size":2,"since":AT,"user":"u"}],
"collection":{"action":"a","step":"s","since":AT,"for":"u","dead":1,"deleted":2,"freed":3,"maxFreed":4},
"connections":[{"client":1,"user":"u","pid":2,"trusted":true,"since":AT,"operation":"o","began":AT,"operations":3}],"otherConnections":1,
"recent":[{"kind":"build","what":"w","outcome":"failed","error":"e","began":AT,"ended":AT,"bytes":1,"users":["u"]}]}]}`)
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestDocumentedForm reads the example of the documentation.
func TestDocumentedForm(t *testing.T) {
	text, err := os.ReadFile("../../contrib/doc/status.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, ok := strings.Cut(string(text), "\n```json\n{\"version\"")
	if !ok {
		t.Fatal("there is no example")
	}
	example, _, _ = strings.Cut(example, "\n```")
	dec := json.NewDecoder(strings.NewReader("{\"version\"" + example))
	dec.DisallowUnknownFields()
	var s Snapshot
	if err := dec.Decode(&s); err != nil || s.Version != Version || len(s.Servers) != 1 || len(s.Servers[0].Builds) != 2 {
		t.Errorf("read %+v, %v", s, err)
	}
}
