package transfer

import (
	"fmt"

	"nixdaemon/protocol/activity"
)

var _ activity.Sink = (*world)(nil)

func (w *world) tell(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, fmt.Sprintf(format, args...))
}

func (w *world) Message(level activity.Level, text string) { w.tell("message %d %s", level, text) }

func (w *world) Start(_ activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) {
	w.tell("start %d %d %s %s %d", level, kind, text, fields[0].Text, parent)
}

func (w *world) Stop(activity.ID) { w.tell("stop") }

func (w *world) Result(_ activity.ID, kind activity.ResultType, fields []activity.Field) {
	w.tell("result %d %d %d %d %d", kind, fields[0].Number, fields[1].Number, fields[2].Number, fields[3].Number)
}
