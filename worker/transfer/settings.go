package transfer

import (
	"time"

	"nixdaemon/worker/settings"
)

// Settings are one client's wishes about transfers. The comment of each field names the setting that it comes from.
type Settings struct {
	ConnectTimeout  time.Duration // connect-timeout; 0 for no limit
	StalledTimeout  time.Duration // stalled-download-timeout; 0 for no limit
	Attempts        uint          // download-attempts; 0 means 1
	RetryDelay      time.Duration // filetransfer-retry-delay: before the second attempt
	RateLimitDelay  time.Duration // filetransfer-retry-delay-rate-limited: the same after status 429 or 503
	MaxRetryDelay   time.Duration // filetransfer-retry-max-delay
	Jitter          bool          // filetransfer-retry-jitter
	Speed           uint64        // download-speed, in bytes per second and transfer; 0 for no limit
	Connections     uint64        // http-connections, of the whole engine; 0 for no limit
	HTTP2           bool          // http2
	UserAgentSuffix string        // user-agent-suffix
	// NetrcFile (netrc-file) has credentials for hosts. It need not exist. Netrc is its contents; if it is not empty the
	// file is not read.
	NetrcFile, Netrc string
	// CAFile (ssl-cert-file) has the certificates that are trusted. CABundle is its contents; if it is not empty the file
	// is not read. With neither no https server is trusted.
	CAFile, CABundle string
}

// From takes the settings of transfers from a client's.
func From(s *settings.Settings) Settings {
	return Settings{
		ConnectTimeout:  seconds(s.ConnectTimeout),
		StalledTimeout:  seconds(s.StalledDownloadTimeout),
		Attempts:        s.DownloadAttempts,
		RetryDelay:      time.Duration(s.RetryDelay) * time.Millisecond,
		RateLimitDelay:  time.Duration(s.RetryDelayRateLimited) * time.Millisecond,
		MaxRetryDelay:   time.Duration(s.RetryMaxDelay) * time.Millisecond,
		Jitter:          s.RetryJitter,
		Speed:           uint64(s.DownloadSpeed) << 10,
		Connections:     s.HTTPConnections,
		HTTP2:           s.HTTP2,
		UserAgentSuffix: s.UserAgentSuffix,
		NetrcFile:       s.NetrcFile,
		CAFile:          s.SSLCertFile,
	}
}

// seconds bounds n to a time that can be waited for.
func seconds(n uint64) time.Duration { return time.Duration(min(n, 1<<31)) * time.Second }
