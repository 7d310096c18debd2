package daemon

import (
	"strings"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/daemon/status/daemonlog"
	"nixdaemon/protocol/activity"
	"nixdaemon/worker/settings"
)

// newLog makes the daemon's own log on standard error, as the settings want it.
func newLog(cfg *config.Config) zerolog.Logger {
	format := daemonlog.Format(cfg.Settings.DaemonLogFormat)
	if format == "" && cfg.LogFormat == string(daemonlog.Internal) {
		format = daemonlog.Internal
	}
	return daemonlog.New(daemonlog.Stderr(format, levelOf(cfg.Settings)))
}

// newStdioLog makes the log of a daemon whose standard error is shown to who has
// come here through ssh.
func newStdioLog(s *settings.Settings) zerolog.Logger {
	level := levelOf(s)
	if s.Verbosity == settings.LevelInfo {
		level = zerolog.ErrorLevel
	}
	return daemonlog.New(daemonlog.Stderr(daemonlog.Human, level))
}

func levelOf(s *settings.Settings) zerolog.Level {
	if level, err := zerolog.ParseLevel(s.DaemonLogLevel); s.DaemonLogLevel != "" && err == nil {
		return level
	}
	return logLevel(activity.Level(s.Verbosity))
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
	return func(level activity.Level, text string) {
		as := severity(level)
		// Upstream prints some warnings as it prints errors: they are none, but to be seen where only errors are.
		if strings.HasPrefix(text, "warning: ") && log.GetLevel() <= zerolog.WarnLevel {
			as = zerolog.WarnLevel
		}
		log.WithLevel(as).Msg(text)
	}
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
