package compat

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bucket is an S3 server with one bucket, for both runs of a script. Everybody
// may read and write it: Debian's builds of upstream cannot sign requests. Who
// signs must do it right all the same.
type bucket struct {
	address string
	dir     string // the bucket's files
}

const (
	bucketKey    = "AKTESTKEY"
	bucketSecret = "a-secret-of-the-tests"
)

// noBucket tells why there can be no S3 server.
func noBucket() error {
	if os.Getenv("NIXDAEMON_S3_SERVER") == "" {
		return errors.New("no S3 server: NIXDAEMON_S3_SERVER does not name the program versitygw (contrib/test/run builds it)")
	}
	return nil
}

// newBucket starts the server, which takes what is signed for a region, until the test ends.
func newBucket(t testing.TB, region string) *bucket {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bucket{address: l.Addr().String()}
	l.Close()
	top, side := t.TempDir(), t.TempDir()
	b.dir = filepath.Join(top, "cache")
	meta := filepath.Join(side, "cache", "meta")
	for _, dir := range []string{b.dir, meta} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// As the server itself notes them.
	for name, text := range map[string]string{"ownership": "BucketOwnerEnforced",
		"acl": `{"Owner":"` + bucketKey + `","Grantees":[{"Permission":"FULL_CONTROL","Access":"` + bucketKey + `","Type":"CanonicalUser"}]}`,
		"policy": `{"Statement":[{"Effect":"Allow","Principal":"*","Action":["s3:GetObject","s3:PutObject","s3:ListBucket"],` +
			`"Resource":["arn:aws:s3:::cache","arn:aws:s3:::cache/*"]}]}`} {
		if err := os.WriteFile(filepath.Join(meta, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Getenv("NIXDAEMON_S3_SERVER"), "--access", bucketKey, "--secret", bucketSecret, "--port", b.address, "--region", region, "--quiet",
		"--virtual-domain", b.virtual(), "--keep-alive", "posix", "--sidecar", side, "--disableotmp", top)
	var log strings.Builder
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
	deadline := time.Now().Add(time.Minute)
	for {
		c, err := net.Dial("tcp", b.address)
		if err == nil {
			c.Close()
			return b
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // there is nothing to wait for but the port
	}
}

// virtual is the server where the bucket's name is part of the host's.
func (b *bucket) virtual() string {
	_, port, _ := net.SplitHostPort(b.address)
	return "localhost:" + port
}

// url is the bucket as a store.
func (b *bucket) url() string { return "s3://cache?endpoint=" + b.address + "&scheme=http" }
