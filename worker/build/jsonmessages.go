package build

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/jsonsyntax"
)

// maxBuilderActivities bounds the activities that one builder may have open, maxHookActivities those of a build hook.
const (
	maxBuilderActivities = 1024
	maxHookActivities    = 64 << 10
)

// jsonMessages understands the lines by which a builder logs with structure: "@nix " and a JSON object
// (libutil/logging.cc, handleJSONLogMessage). Of a source that is not trusted, as a builder is not, only those activities
// count that are file transfers.
type jsonMessages struct {
	sink    activity.Sink
	id      activity.ID // the Build activity; 0 for none
	ids     *activity.IDs
	trusted bool
	source  string // in messages; "" is the builder

	open map[uint64]activity.ID // the builder's own numbers
}

// jsonMessage is a message's object.
type jsonMessage map[string]any

// handle takes a line if it is a message; otherwise it is an ordinary line of the log.
func (m *jsonMessages) handle(line string) bool {
	text, ok := strings.CutPrefix(line, "@nix ")
	if !ok {
		return false
	}
	if problem := jsonsyntax.Problem(text); problem != "" {
		m.sink.Message(activity.Error, textf("bad JSON log message from %s: %s", plain(m.sourceName()), problem).Coloured())
		return false
	}
	msg, err := parseMessage(text)
	if err == nil {
		err = m.act(msg)
	}
	if err != nil {
		m.sink.Message(activity.Warn, warning(textf("Unable to handle a JSON message from %s: %s", plain(m.sourceName()), err.Error())))
		return false
	}
	return true
}

func (m *jsonMessages) sourceName() string {
	if m.source == "" {
		return "the derivation builder"
	}
	return m.source
}

// counts tells whether activities of a type are passed on.
func (m *jsonMessages) counts(kind uint64) bool {
	if m.trusted {
		return len(m.open) < maxHookActivities
	}
	return activity.Type(kind) == activity.FileTransfer && len(m.open) < maxBuilderActivities
}

func parseMessage(text string) (jsonMessage, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		return nil, err
	}
	switch value := value.(type) {
	case map[string]any:
		return value, nil
	case nil:
		// To upstream that is an object without members.
		return nil, nil
	default:
		return nil, fmt.Errorf("[json.exception.type_error.305] cannot use operator[] with a string argument with %s", jsonType(value))
	}
}

func (m *jsonMessages) act(msg jsonMessage) error {
	action, err := msg.text("action")
	if err != nil {
		return err
	}
	switch action {
	case "start":
		return m.start(msg)
	case "stop":
		return m.stop(msg)
	case "result":
		return m.result(msg)
	case "setPhase":
		phase, err := msg.text("phase")
		if err != nil {
			return err
		}
		if m.id == 0 {
			return nil
		}
		m.sink.Result(m.id, activity.SetPhase, []activity.Field{activity.Text(phase)})
	case "msg":
		text, err := msg.text("msg")
		if err != nil {
			return err
		}
		level, err := msg.number("level")
		if err != nil {
			return err
		}
		m.sink.Message(activity.Level(level), text)
	}
	return nil
}

func (m *jsonMessages) start(msg jsonMessage) error {
	kind, err := msg.number("type")
	if err != nil || !m.counts(kind) {
		return err
	}
	number, err := msg.number("id")
	if err != nil {
		return err
	}
	level, err := msg.number("level")
	if err != nil {
		return err
	}
	text, err := msg.text("text")
	if err != nil {
		return err
	}
	fields, err := msg.fields()
	if err != nil {
		return err
	}
	if _, again := m.open[number]; again {
		return nil
	}
	if m.open == nil {
		m.open = make(map[uint64]activity.ID)
	}
	id := m.ids.Next()
	m.open[number] = id
	m.sink.Start(id, activity.Level(level), activity.Type(kind), text, fields, m.id)
	return nil
}

func (m *jsonMessages) stop(msg jsonMessage) error {
	number, err := msg.number("id")
	if err != nil {
		return err
	}
	if id, ok := m.open[number]; ok {
		delete(m.open, number)
		m.sink.Stop(id)
	}
	return nil
}

func (m *jsonMessages) result(msg jsonMessage) error {
	number, err := msg.number("id")
	if err != nil {
		return err
	}
	id, ok := m.open[number]
	if !ok {
		return nil
	}
	n, err := msg.number("type")
	if err != nil {
		return err
	}
	fields, err := msg.fields()
	if err != nil {
		return err
	}
	kind := activity.ResultType(n)
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

func (msg jsonMessage) text(key string) (string, error) {
	text, ok := msg[key].(string)
	if !ok {
		return "", wrongType("string", msg[key])
	}
	return text, nil
}

// number reads what is an integer; others are converted as upstream's C++ does in practice.
func (msg jsonMessage) number(key string) (uint64, error) {
	n, ok := msg[key].(json.Number)
	if !ok {
		return 0, wrongType("number", msg[key])
	}
	if u, err := strconv.ParseUint(n.String(), 10, 64); err == nil {
		return u, nil
	}
	if i, err := n.Int64(); err == nil {
		return uint64(i), nil
	}
	f, _ := n.Float64() // beyond the largest number is out of range, too
	if f >= 0 && f < 1<<63 {
		return uint64(f), nil
	}
	return 1 << 63, nil
}

func wrongType(want string, got any) error {
	return fmt.Errorf("[json.exception.type_error.302] type must be %s, but is %s", want, jsonType(got))
}

func jsonType(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case json.Number:
		return "number"
	case []any:
		return "array"
	}
	return "object"
}

// fields reads a list of texts and non-negative whole numbers.
func (msg jsonMessage) fields() ([]activity.Field, error) {
	items, ok := msg["fields"].([]any)
	if !ok && msg["fields"] != nil {
		items = []any{msg["fields"]}
	}
	fields := make([]activity.Field, 0, len(items))
	for _, item := range items {
		switch item := item.(type) {
		case string:
			fields = append(fields, activity.Text(item))
			continue
		case json.Number:
			if number, err := strconv.ParseUint(item.String(), 10, 64); err == nil {
				fields = append(fields, activity.Number(number))
				continue
			}
		}
		return nil, fmt.Errorf("unsupported JSON type in %.100v", item)
	}
	return fields, nil
}
