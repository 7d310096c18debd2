package activity

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// heard keeps what it is told.
type heard []string

func (h *heard) Message(level Level, text string) {
	*h = append(*h, fmt.Sprint("message ", level, text))
}

func (h *heard) Start(id ID, level Level, kind Type, text string, fields []Field, parent ID) {
	*h = append(*h, fmt.Sprint("start ", id, level, kind, text, fields, parent))
}

func (h *heard) Stop(id ID) { *h = append(*h, fmt.Sprint("stop ", id)) }

func (h *heard) Result(id ID, kind ResultType, fields []Field) {
	*h = append(*h, fmt.Sprint("result ", id, kind, fields))
}

// tell says one thing of each kind.
func tell(s Sink, text string) {
	s.Message(Error, text)
	s.Start(1, Info, Build, text, []Field{{Number: 2}}, 3)
	s.Result(1, Progress, []Field{{Number: 4}})
	s.Stop(1)
}

// TestRelay: each hears exactly what is told while it is listened to.
func TestRelay(t *testing.T) {
	var r Relay
	var first, second, want heard
	tell(&r, "to nobody")
	r.Turn(&first)
	tell(&r, "one")
	r.Turn(nil)
	tell(&r, "to nobody")
	r.Turn(&second)
	tell(&r, "two")
	tell(&want, "one")
	if diff := cmp.Diff(want, first); diff != "" {
		t.Error(diff)
	}
	want = nil
	tell(&want, "two")
	if diff := cmp.Diff(want, second); diff != "" {
		t.Error(diff)
	}
}
