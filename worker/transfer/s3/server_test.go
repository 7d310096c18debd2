package s3

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixdaemon/worker/transfer"
)

// serverBinary is the S3 server that tests run: versitygw, a real one that verifies signatures. contrib/test/run
// builds it.
func serverBinary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("NIXDAEMON_S3_SERVER")
	if path == "" {
		t.Skip("no S3 server: NIXDAEMON_S3_SERVER does not name the program versitygw (contrib/test/run builds it)")
	}
	return path
}

const (
	accessKey = "AKTESTKEY"
	secretKey = "a secret of the tests"
)

// world is a server with a bucket, and an engine.
type world struct {
	region   string
	endpoint string
	dir      string // the bucket's files
	engine   *transfer.Engine
	set      transfer.Settings
	keys     Keys
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldIn(t, "us-east-1")
}

func newWorldIn(t *testing.T, region string) *world {
	t.Helper()
	binary := serverBinary(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	top, side := t.TempDir(), t.TempDir()
	cmd := exec.Command(binary, "--access", accessKey, "--secret", secretKey, "--port", address, "--region", region, "--quiet", "--keep-alive", "posix",
		"--sidecar", side, "--disableotmp", top)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // nothing of it is needed any more
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("S3 server:\n%s", log.String())
		}
	})
	w := &world{region: region, endpoint: "http://" + address, dir: filepath.Join(top, "cache"), engine: transfer.New(transfer.Options{}),
		set: transfer.Settings{Attempts: 100, RetryDelay: 20 * time.Millisecond, MaxRetryDelay: 20 * time.Millisecond,
			Connections: 25}, keys: Keys{AccessKeyID: accessKey, SecretAccessKey: secretKey}}
	t.Cleanup(w.engine.Close)
	w.api(t, http.MethodPut, "/cache", "", "") // waits until the server is there
	w.set.Attempts = 2
	return w
}

// api makes a signed request of its own.
func (w *world) api(t *testing.T, method, path, query, body string) string {
	t.Helper()
	r := &transfer.Request{Method: method, URL: w.endpoint + path + "?" + query,
		Sign: func(r *http.Request) error { return w.keys.Sign(w.region, r) }}
	if method == http.MethodPut {
		r.Body = text(body)
	}
	resp, err := w.engine.Do(t.Context(), &w.set, r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// makePublic lets everybody read and write the bucket.
func (w *world) makePublic(t *testing.T) {
	w.api(t, http.MethodPut, "/cache", "policy", `{"Statement":[{"Effect":"Allow","Principal":"*",`+
		`"Action":["s3:GetObject","s3:PutObject","s3:ListBucket"],"Resource":["arn:aws:s3:::cache","arn:aws:s3:::cache/*"]}]}`)
}

func (w *world) params() map[string]string {
	return map[string]string{"endpoint": strings.TrimPrefix(w.endpoint, "http://"), "scheme": "http"}
}

func (w *world) store(t *testing.T, cache string, params map[string]string, env map[string]string) *Store {
	t.Helper()
	s, err := New(w.engine, NewChain(func(name string) string { return env[name] }), cache, params)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func withKeys() map[string]string {
	return map[string]string{"AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": secretKey}
}

func (w *world) call() transfer.Call { return transfer.Call{Settings: &w.set} }

func read(ctx context.Context, s transfer.Objects, name string, c transfer.Call) (string, error) {
	resp, err := s.Get(ctx, name, c)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// noAWS keeps the SDK from looking at this machine.
func noAWS(t *testing.T) {
	for name, value := range map[string]string{"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_PROFILE": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""} {
		t.Setenv(name, value)
	}
}
