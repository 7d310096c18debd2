package s3

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// bare takes everything away that could lead to keys, and gives a home directory.
func bare(t *testing.T) (home string) {
	home = t.TempDir()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "") // so that it comes back
			os.Unsetenv(name)
		}
	}
	t.Setenv("HOME", home)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_REGION", "eu-west-1")
	return home
}

// authority is a server that knows keys.
type authority struct {
	*httptest.Server
	asked atomic.Int32 // for keys
}

// newAuthority answers one path with a document, if allowed says so, and others by more.
func newAuthority(t *testing.T, path, document string, allowed func(*http.Request) bool, more http.Handler) *authority {
	a := &authority{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != path && more != nil:
			more.ServeHTTP(w, r)
		case r.URL.Path != path:
			http.NotFound(w, r)
		case !allowed(r):
			http.Error(w, "who are you?", http.StatusForbidden)
		default:
			a.asked.Add(1)
			fmt.Fprint(w, document)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

func expect(t *testing.T, c *Chain, name string) {
	t.Helper()
	keys, err := c.Keys(t.Context(), name)
	if want := (Keys{"AKID", "secret", "token"}); err != nil || keys != want {
		t.Fatalf("got %+v, %v", keys, err)
	}
}

const validFor = time.Hour

func expiring(in time.Duration) string { return time.Now().Add(in).UTC().Format(time.RFC3339) }

// TestInstanceKeys asks the metadata service of a virtual machine, which wants a token of its own (IMDSv2).
func TestInstanceKeys(t *testing.T) {
	bare(t)
	more := http.NewServeMux()
	more.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
		fmt.Fprint(w, "session")
	})
	more.HandleFunc("GET /latest/meta-data/iam/security-credentials/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "builder") })
	a := newAuthority(t, "/latest/meta-data/iam/security-credentials/builder",
		`{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"AKID","SecretAccessKey":"secret","Token":"token","Expiration":"`+expiring(validFor)+`"}`,
		func(r *http.Request) bool { return r.Header.Get("X-Aws-Ec2-Metadata-Token") == "session" }, more)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", a.URL)
	c := NewChain(nil)
	expect(t, c, "")
	expect(t, c, "")
	if n := a.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestContainerKeys asks what a container's environment names. Keys that are about to expire are asked for again.
func TestContainerKeys(t *testing.T) {
	bare(t)
	for in, times := range map[time.Duration]int32{validFor: 1, time.Millisecond: 3} {
		a := newAuthority(t, "/keys", `{"AccessKeyId":"AKID","SecretAccessKey":"secret","Token":"token","Expiration":"`+expiring(in)+`"}`,
			func(r *http.Request) bool { return r.Header.Get("Authorization") == "let me" }, nil)
		t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", a.URL+"/keys")
		t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let me")
		c := NewChain(nil)
		for range 3 {
			expect(t, c, "")
		}
		if n := a.asked.Load(); n != times {
			t.Errorf("valid for %v: asked %d times, want %d", in, n, times)
		}
	}
}

// TestContainerKeysRefused remembers for a while that there are none.
func TestContainerKeysRefused(t *testing.T) {
	bare(t)
	var asked atomic.Int32
	a := newAuthority(t, "/keys", "", func(*http.Request) bool { asked.Add(1); return false }, nil)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", a.URL+"/keys")
	c := NewChain(nil)
	for range 3 {
		if keys, err := c.Keys(t.Context(), ""); err == nil {
			t.Fatalf("got %+v", keys)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestWaitingForKeysEnds: who waits for somebody else's search can give up, and the next one finds them.
func TestWaitingForKeysEnds(t *testing.T) {
	bare(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	a := newAuthority(t, "/keys", `{"AccessKeyId":"AKID","SecretAccessKey":"secret","Token":"token","Expiration":"`+expiring(validFor)+`"}`,
		func(*http.Request) bool { asked <- struct{}{}; <-answer; return true }, nil)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", a.URL+"/keys")
	c := NewChain(nil)
	done := make(chan error)
	go func() {
		_, err := c.Keys(t.Context(), "")
		done <- err
	}()
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Keys(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("who has gone: %v", err)
	}
	close(answer)
	if err := <-done; err != nil {
		t.Error(err)
	}
	expect(t, c, "")
}

// TestWebIdentity assumes a role with a token in a file, as in a cluster.
func TestWebIdentity(t *testing.T) {
	home := bare(t)
	a := newAuthority(t, "/", `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>`+
		`<Credentials><AccessKeyId>AKID</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken><Expiration>`+expiring(validFor)+`</Expiration></Credentials>`+
		`</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
		func(r *http.Request) bool {
			return r.FormValue("Action") == "AssumeRoleWithWebIdentity" && r.FormValue("WebIdentityToken") == "who I am" && r.FormValue("RoleArn") == "arn:aws:iam::1:role/builder"
		}, nil)
	file := filepath.Join(home, "token")
	if err := os.WriteFile(file, []byte("who I am"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/builder")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file)
	t.Setenv("AWS_ENDPOINT_URL_STS", a.URL)
	expect(t, NewChain(nil), "")
}

// TestSSOKeys takes the token of somebody who has logged in with "aws sso login", for a profile.
func TestSSOKeys(t *testing.T) {
	home := bare(t)
	a := newAuthority(t, "/federation/credentials",
		fmt.Sprintf(`{"roleCredentials":{"accessKeyId":"AKID","secretAccessKey":"secret","sessionToken":"token","expiration":%d}}`, time.Now().Add(validFor).UnixMilli()),
		func(r *http.Request) bool {
			q := r.URL.Query()
			return r.Header.Get("X-Amz-Sso_bearer_token") == "logged in" && q.Get("role_name") == "builder" && q.Get("account_id") == "1"
		}, nil)
	t.Setenv("AWS_ENDPOINT_URL_SSO", a.URL)
	token, err := json.Marshal(map[string]string{"accessToken": "logged in", "expiresAt": expiring(validFor), "region": "eu-west-1", "startUrl": "https://start"})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum([]byte("work"))
	for name, text := range map[string]string{
		"config": "[profile far]\nsso_session = work\nsso_account_id = 1\nsso_role_name = builder\nregion = eu-west-1\n" +
			"[sso-session work]\nsso_start_url = https://start\nsso_region = eu-west-1\n",
		"sso/cache/" + hex.EncodeToString(sum[:]) + ".json": string(token),
	} {
		file := filepath.Join(home, ".aws", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(home, ".aws/config"))
	c := NewChain(nil)
	expect(t, c, "far")
	if keys, err := c.Keys(t.Context(), "other"); err == nil {
		t.Errorf("a profile that is not there: %+v", keys)
	}
}

// TestProcessKeys runs the program that a profile names.
func TestProcessKeys(t *testing.T) {
	home := bare(t)
	file := filepath.Join(home, "config")
	document := `{"Version":1,"AccessKeyId":"AKID","SecretAccessKey":"secret","SessionToken":"token"}`
	if err := os.WriteFile(file, []byte("[default]\ncredential_process = /bin/cat "+home+"/keys\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home+"/keys", []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CONFIG_FILE", file)
	expect(t, NewChain(nil), "")
}
