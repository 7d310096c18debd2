package builtin

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"nixdaemon/worker/builtin/builtinjob"
)

// What the signatures are worth is tested against a real server (worker/transfer/s3).
func TestFetchS3(t *testing.T) {
	var path, auth, token string
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		path, auth, token = r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("X-Amz-Security-Token")
		io.WriteString(w, "from S3")
	})
	job := fetch("s3://bucket/a!b?region=eu-1&endpoint=" + u)
	if got := do(t, "fetchurl", job).contents(t); got != "from S3" || path != "/bucket/a%21b" || auth != "" {
		t.Errorf("got %q from %q, authorization %q", got, path, auth)
	}
	job.S3Keys = &builtinjob.Keys{AccessKeyID: "ID", SecretAccessKey: "secret", SessionToken: "token"}
	do(t, "fetchurl", job).contents(t)
	if !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=ID/") || !strings.Contains(auth, "/eu-1/s3/aws4_request") || token != "token" {
		t.Errorf("authorization %q, token %q", auth, token)
	}
}
