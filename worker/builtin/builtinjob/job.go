// Package builtinjob is what the scheduler tells a builtin builder: plain data that both of them know and that passes
// between their processes as JSON.
//
// A [Job] lies in [File] of the build directory. worker/build writes it, worker/builtin reads and removes it.
package builtinjob

// File is the file in the build directory that holds a [Job]. It has secrets in it and is for the builder alone.
const File = ".builtin.json"

// Job is what a builtin needs to know. Placeholders of outputs are replaced already.
type Job struct {
	// Name is the builder's, without "builtin:".
	Name string `json:"name"`
	// Env is the derivation's environment; Outputs are the paths to make, by output name.
	Env     map[string]string `json:"env"`
	Outputs map[string]string `json:"outputs"`
	// FixedAlgo and FixedHash are set for a fixed output: method prefix and algorithm ("r:sha256", or "sha256" for a
	// flat hash), and the digest in base 16.
	FixedAlgo string `json:"fixedAlgo,omitempty"`
	FixedHash string `json:"fixedHash,omitempty"`
	// Impure is set for impure derivations.
	Impure bool `json:"impure,omitempty"`
	// HashedMirrors are the URLs of mirrors by hash (setting hashed-mirrors).
	HashedMirrors []string `json:"hashedMirrors,omitempty"`
	// Netrc and CABundle are contents of files: credentials, and the certificates that are trusted. Without a bundle
	// no https server is.
	Netrc    string `json:"netrc,omitempty"`
	CABundle string `json:"caBundle,omitempty"`
	// S3Keys sign requests to s3:// URLs; nil leaves them unsigned.
	S3Keys *Keys `json:"s3Keys,omitempty"`
	// Transfer is how downloads are made; nil means [DefaultTransfer].
	Transfer *Transfer `json:"transfer,omitempty"`
	// Verbosity is the client's; debug messages are sent from 6 on.
	Verbosity uint64 `json:"verbosity,omitempty"`
}

// Keys are credentials of S3.
type Keys struct {
	AccessKeyID     string `json:"accessKeyID"`
	SecretAccessKey string `json:"secretAccessKey"`
	SessionToken    string `json:"sessionToken,omitempty"`
}

// Transfer holds the settings of downloads, each named after upstream's.
type Transfer struct {
	// ConnectTimeout is how many seconds it may take to reach a server (connect-timeout); 0 means no limit.
	ConnectTimeout uint64 `json:"connectTimeout"`
	// StalledTimeout is how many seconds a server may be silent (stalled-download-timeout); 0 means no limit.
	StalledTimeout uint64 `json:"stalledTimeout"`
	// Attempts is how often a download is tried (download-attempts).
	Attempts uint64 `json:"attempts"`
	// RetryDelay, RateLimitDelay and MaxRetryDelay are in milliseconds (filetransfer-retry-delay, -rate-limited,
	// -max-delay); Jitter varies them (filetransfer-retry-jitter).
	RetryDelay     uint64 `json:"retryDelay"`
	RateLimitDelay uint64 `json:"rateLimitDelay"`
	MaxRetryDelay  uint64 `json:"maxRetryDelay"`
	Jitter         bool   `json:"jitter"`
	// Speed limits each download, in KiB per second (download-speed); 0 means no limit.
	Speed uint64 `json:"speed"`
	// UserAgentSuffix is added to the user agent (user-agent-suffix).
	UserAgentSuffix string `json:"userAgentSuffix"`
	// HTTP2 allows HTTP/2 (http2).
	HTTP2 bool `json:"http2"`
}

// DefaultTransfer has the defaults of upstream 2.34.8, and for delays those of 2.35.
func DefaultTransfer() Transfer {
	return Transfer{ConnectTimeout: 15, StalledTimeout: 300, Attempts: 5, RetryDelay: 100, RateLimitDelay: 5000,
		MaxRetryDelay: 60000, Jitter: true, HTTP2: true}
}
