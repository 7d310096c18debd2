package build

import (
	"encoding/json"
	"fmt"
	"strings"

	"nixdaemon/protocol/activity"
)

// maxBuilderActivities bounds the activities that one builder may have open.
const maxBuilderActivities = 1024

// jsonMessages understands the lines by which a builder logs with structure: "@nix " and a JSON object
// (libutil/logging.cc, handleJSONLogMessage, for a source that is not trusted: of activities only file transfers count).
type jsonMessages struct {
	sink activity.Sink
	id   activity.ID // the Build activity
	ids  *activity.IDs
	open map[uint64]activity.ID // the builder's own numbers
}

type jsonMessage struct {
	Action *string          `json:"action"`
	ID     *uint64          `json:"id"`
	Level  *uint64          `json:"level"`
	Type   *uint64          `json:"type"`
	Text   *string          `json:"text"`
	Fields *json.RawMessage `json:"fields"`
	Phase  *string          `json:"phase"`
	Msg    *string          `json:"msg"`
}

// handle takes a line if it is a message; otherwise it is an ordinary line of the log.
func (m *jsonMessages) handle(line string) bool {
	rest, ok := strings.CutPrefix(line, "@nix ")
	if !ok {
		return false
	}
	var msg jsonMessage
	err := json.Unmarshal([]byte(rest), &msg)
	if _, syntax := err.(*json.SyntaxError); syntax {
		m.sink.Message(activity.Error, errorLog(fmt.Sprintf("bad JSON log message from the derivation builder: %s%v%s", ansiMagenta, err, ansiNormal)))
		return false
	}
	if err == nil {
		err = m.act(&msg)
	}
	if err != nil {
		m.sink.Message(activity.Warn, fmt.Sprintf("%swarning:%s Unable to handle a JSON message from the derivation builder: %s%v%s",
			ansiMagenta, ansiNormal, ansiMagenta, err, ansiNormal))
		return false
	}
	return true
}

func (m *jsonMessages) act(msg *jsonMessage) error {
	if msg.Action == nil {
		return missing("action")
	}
	switch *msg.Action {
	case "start":
		return m.start(msg)
	case "stop":
		return m.stop(msg)
	case "result":
		return m.result(msg)
	case "setPhase":
		if msg.Phase == nil {
			return missing("phase")
		}
		m.sink.Result(m.id, activity.SetPhase, []activity.Field{activity.Text(*msg.Phase)})
	case "msg":
		if msg.Msg == nil || msg.Level == nil {
			return missing("msg")
		}
		m.sink.Message(activity.Level(*msg.Level), *msg.Msg)
	}
	return nil
}

func (m *jsonMessages) start(msg *jsonMessage) error {
	if msg.Type == nil {
		return missing("type")
	}
	if activity.Type(*msg.Type) != activity.FileTransfer || len(m.open) >= maxBuilderActivities {
		return nil
	}
	if msg.ID == nil || msg.Level == nil || msg.Text == nil {
		return missing("id")
	}
	fields, err := jsonFields(msg.Fields)
	if err != nil {
		return err
	}
	if _, again := m.open[*msg.ID]; again {
		return nil
	}
	if m.open == nil {
		m.open = make(map[uint64]activity.ID)
	}
	id := m.ids.Next()
	m.open[*msg.ID] = id
	m.sink.Start(id, activity.Level(*msg.Level), activity.FileTransfer, *msg.Text, fields, m.id)
	return nil
}

func (m *jsonMessages) stop(msg *jsonMessage) error {
	if msg.ID == nil {
		return missing("id")
	}
	if id, ok := m.open[*msg.ID]; ok {
		delete(m.open, *msg.ID)
		m.sink.Stop(id)
	}
	return nil
}

func (m *jsonMessages) result(msg *jsonMessage) error {
	if msg.ID == nil {
		return missing("id")
	}
	id, ok := m.open[*msg.ID]
	if !ok {
		return nil
	}
	if msg.Type == nil {
		return missing("type")
	}
	fields, err := jsonFields(msg.Fields)
	if err != nil {
		return err
	}
	kind := activity.ResultType(*msg.Type)
	// These two are kept for replay under the assumption that they have one text.
	if (kind == activity.BuildLogLine || kind == activity.SetPhase) && len(fields) != 1 {
		return nil
	}
	m.sink.Result(id, kind, fields)
	return nil
}

// end stops what the builder has left open.
func (m *jsonMessages) end() {
	for _, id := range m.open {
		m.sink.Stop(id)
	}
	m.open = nil
}

func missing(key string) error { return fmt.Errorf("key '%s' not found", key) }

// jsonFields reads a list of texts and non-negative numbers.
func jsonFields(raw *json.RawMessage) ([]activity.Field, error) {
	if raw == nil {
		return nil, nil
	}
	var items []json.RawMessage
	if err := json.Unmarshal(*raw, &items); err != nil {
		return nil, err
	}
	fields := make([]activity.Field, 0, len(items))
	for _, item := range items {
		var text string
		var number uint64
		switch {
		case json.Unmarshal(item, &text) == nil && string(item) != "null":
			fields = append(fields, activity.Text(text))
		case json.Unmarshal(item, &number) == nil && string(item) != "null":
			fields = append(fields, activity.Number(number))
		default:
			return nil, fmt.Errorf("unsupported JSON type in %.100q", item)
		}
	}
	return fields, nil
}
