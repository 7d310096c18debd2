package daemon

import (
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"nixdaemon/protocol/activity"
)

// TestStoreLog: what upstream calls a warning is one, and is told even where only errors are.
func TestStoreLog(t *testing.T) {
	for _, c := range []struct {
		shown zerolog.Level
		level activity.Level
		text  string
		want  string
	}{
		{zerolog.InfoLevel, activity.Error, "warning: no such group", `"warn"`},
		{zerolog.ErrorLevel, activity.Error, "warning: no such group", `"error"`},
		{zerolog.InfoLevel, activity.Error, "it is damaged", `"error"`},
		{zerolog.InfoLevel, activity.Warn, "odd", `"warn"`},
		{zerolog.ErrorLevel, activity.Warn, "odd", ""},
	} {
		var out strings.Builder
		storeLog(zerolog.New(&out).Level(c.shown))(c.level, c.text)
		if got := out.String(); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s of level %v where %v is shown: %q", c.text, c.level, c.shown, got)
		}
	}
}
