package build

import (
	"encoding/json"
	"os"
	"strings"

	"nixdaemon/protocol/derivation"
	"nixdaemon/sandbox"
)

// BuiltinFile is the file in the build directory that tells a builtin builder what to do: a [BuiltinJob] as JSON,
// readable by the builder alone.
const BuiltinFile = ".builtin.json"

// BuiltinJob is what a builtin builder needs to know.
type BuiltinJob struct {
	// Name is the builder's, without "builtin:".
	Name string `json:"name"`
	// Env is the derivation's own environment; Outputs are the paths to make. Placeholders are replaced.
	Env             map[string]string `json:"env"`
	StructuredAttrs *string           `json:"structuredAttrs,omitempty"`
	Outputs         map[string]string `json:"outputs"`
	// Fixed is set for fixed outputs: method prefix and algorithm ("r:sha256") and base-16 digest. Impure marks
	// impure derivations.
	FixedAlgo string `json:"fixedAlgo,omitempty"`
	FixedHash string `json:"fixedHash,omitempty"`
	Impure    bool   `json:"impure,omitempty"`
	// BuildDir is the working directory.
	BuildDir string `json:"buildDir"`
	StoreDir string `json:"storeDir"`
	// HashedMirrors, Netrc (contents) and CABundle (contents) are for builtin:fetchurl.
	HashedMirrors []string `json:"hashedMirrors,omitempty"`
	Netrc         string   `json:"netrc,omitempty"`
	CABundle      string   `json:"caBundle,omitempty"`
	// Transfer is how downloads are made.
	Transfer *BuiltinTransfer `json:"transfer,omitempty"`
	// Verbosity is the client's.
	Verbosity uint64 `json:"verbosity,omitempty"`
}

// BuiltinTransfer holds settings of downloads: seconds, seconds, tries, KiB per second; 0 means no limit.
type BuiltinTransfer struct {
	ConnectTimeout  uint64 `json:"connectTimeout"`
	StalledTimeout  uint64 `json:"stalledTimeout"`
	Attempts        uint64 `json:"attempts"`
	Speed           uint64 `json:"speed"`
	UserAgentSuffix string `json:"userAgentSuffix"`
	HTTP2           bool   `json:"http2"`
}

// builtinEnv are the variables of the daemon that builtin builders look at: the proxies for downloads.
var builtinEnv = [...]string{"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"}

// prepareBuiltin puts the program that carries out a builtin builder in its place. It is a program of ours: what the
// derivation sets is for the job alone, since the environment configures the Go runtime too.
func (a *attempt) prepareBuiltin(spec *sandbox.Spec) error {
	name := strings.TrimPrefix(a.drv.Builder, "builtin:")
	if a.o.BuiltinCommand == nil {
		spec.Path = "" // as for any builder that cannot be executed, the log says why
		return nil
	}
	spec.Args = a.o.BuiltinCommand(name)
	spec.Path = spec.Args[0]
	spec.Env = a.builtinProcessEnv()
	job := BuiltinJob{Name: name, Env: make(map[string]string, len(a.drv.Env)), Outputs: make(map[string]string, len(a.outputs)),
		StructuredAttrs: a.drv.StructuredAttrs, Impure: a.kind.IsImpure, BuildDir: a.tmp.path, StoreDir: string(a.dir), Verbosity: uint64(a.set.Verbosity)}
	for k, v := range a.drv.Env {
		job.Env[k] = rewriteString(v, a.rewrites)
	}
	for k, o := range a.outputs {
		job.Outputs[k] = a.dir.Print(o.scratch)
		if out := a.drv.Outputs[k]; out.Kind == derivation.FixedCA {
			job.FixedAlgo = out.CA.Method.Prefix() + out.CA.Hash.Algo().String()
			job.FixedHash = out.CA.Hash.Base16()
		}
	}
	if name == "fetchurl" {
		job.HashedMirrors = a.set.HashedMirrors
		job.Transfer = &BuiltinTransfer{ConnectTimeout: a.set.ConnectTimeout, StalledTimeout: a.set.StalledDownloadTimeout,
			Attempts: uint64(a.set.DownloadAttempts), Speed: uint64(a.set.DownloadSpeed), UserAgentSuffix: a.set.UserAgentSuffix, HTTP2: a.set.HTTP2}
		// Neither file has to exist.
		if text, err := os.ReadFile(a.set.NetrcFile); err == nil {
			job.Netrc = string(text)
		}
		if text, err := os.ReadFile(a.set.SSLCertFile); err == nil && a.set.SSLCertFile != "" {
			job.CABundle = string(text)
		}
	}
	text, err := json.Marshal(job)
	if err != nil {
		return err
	}
	return a.writeFile(BuiltinFile, string(text), 0o600)
}

func (a *attempt) builtinProcessEnv() []string {
	env := []string{"HOME=" + homeDir, "NIX_BUILD_TOP=" + a.tmp.path, "TMPDIR=" + a.tmp.path}
	if a.o.Getenv == nil {
		return env
	}
	for _, name := range builtinEnv {
		if value := a.o.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}
