package daemon

import (
	"io"

	"github.com/rs/zerolog"

	"nixdaemon/protocol/activity"
	"nixdaemon/worker/settings"
)

// newLog makes the daemon's own log on standard error, at the configured
// verbosity.
func newLog(w io.Writer, verbosity settings.Verbosity) zerolog.Logger {
	console := zerolog.ConsoleWriter{
		Out: w, NoColor: true, PartsOrder: []string{zerolog.MessageFieldName},
	}
	return zerolog.New(console).Level(logLevel(activity.Level(verbosity)))
}

// logLevel is the least important level of ours that a verbosity shows.
func logLevel(verbosity activity.Level) zerolog.Level {
	switch {
	case verbosity == activity.Error:
		return zerolog.ErrorLevel
	case verbosity <= activity.Notice:
		return zerolog.WarnLevel
	case verbosity <= activity.Chatty:
		return zerolog.InfoLevel
	}
	return zerolog.DebugLevel
}

// storeLog passes what the store says to its administrator on to the log.
func storeLog(log zerolog.Logger) func(activity.Level, string) {
	return func(level activity.Level, text string) { log.WithLevel(severity(level)).Msg(text) }
}

func severity(level activity.Level) zerolog.Level {
	switch level {
	case activity.Error:
		return zerolog.ErrorLevel
	case activity.Warn, activity.Notice:
		return zerolog.WarnLevel
	case activity.Debug, activity.Vomit:
		return zerolog.DebugLevel
	}
	return zerolog.InfoLevel
}
