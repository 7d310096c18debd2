package build

import (
	"encoding/json"
	"os"
	"strings"

	"nixdaemon/protocol/derivation"
	"nixdaemon/sandbox"
	"nixdaemon/worker/builtin/builtinjob"
)

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
	if a.isolated {
		spec.Path = builtinProgram
	}
	spec.Env = a.builtinProcessEnv()
	job := builtinjob.Job{Name: name, Env: make(map[string]string, len(a.drv.Env)), Outputs: make(map[string]string, len(a.outputs)),
		Impure: a.kind.IsImpure, Verbosity: uint64(a.set.Verbosity)}
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
		job.Transfer = &builtinjob.Transfer{ConnectTimeout: a.set.ConnectTimeout, StalledTimeout: a.set.StalledDownloadTimeout,
			Attempts: uint64(a.set.DownloadAttempts), Speed: uint64(a.set.DownloadSpeed), UserAgentSuffix: a.set.UserAgentSuffix, HTTP2: a.set.HTTP2,
			RetryDelay: uint64(a.set.RetryDelay), RateLimitDelay: uint64(a.set.RetryDelayRateLimited),
			MaxRetryDelay: uint64(a.set.RetryMaxDelay), Jitter: a.set.RetryJitter}
		// Neither file has to exist.
		if text, err := os.ReadFile(a.set.NetrcFile); err == nil {
			job.Netrc = string(text)
		}
		if text, err := os.ReadFile(a.set.SSLCertFile); err == nil && a.set.SSLCertFile != "" {
			job.CABundle = string(text)
		}
		if url := job.Env["url"]; strings.HasPrefix(url, "s3:") && a.o.S3Keys != nil {
			job.S3Keys = a.o.S3Keys(a.ctx, url)
		}
	}
	text, err := json.Marshal(job)
	if err != nil {
		return err
	}
	return a.writeFile(builtinjob.File, string(text), 0o600)
}

func (a *attempt) builtinProcessEnv() []string {
	env := []string{"HOME=" + homeDir, "NIX_BUILD_TOP=" + a.tmp.inside, "TMPDIR=" + a.tmp.inside}
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
