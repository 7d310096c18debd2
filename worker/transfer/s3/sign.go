package s3

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Keys are what requests are signed with. The zero value signs nothing.
type Keys struct {
	AccessKeyID, SecretAccessKey string
	SessionToken                 string // "" for none
}

// unsignedPayload stands for the hash of contents that are not hashed before they are sent.
const unsignedPayload = "UNSIGNED-PAYLOAD"

// Sign signs a request to S3 in a region.
func (k Keys) Sign(region string, r *http.Request) error {
	if k.AccessKeyID == "" {
		return nil
	}
	hash := unsignedPayload
	if r.Body == nil || r.Body == http.NoBody {
		empty := sha256.Sum256(nil)
		hash = hex.EncodeToString(empty[:])
	}
	// Only what makes a difference is signed: proxies change the rest.
	c := &http.Request{Method: r.Method, URL: r.URL, Host: r.Host, Header: http.Header{"X-Amz-Content-Sha256": {hash}},
		ContentLength: r.ContentLength}
	for name, values := range r.Header {
		if signed(name) {
			c.Header[name] = values
		}
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	creds := aws.Credentials{AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey, SessionToken: k.SessionToken}
	if err := signer.SignHTTP(r.Context(), creds, c, hash, "s3", region, time.Now()); err != nil {
		return fmt.Errorf("sign request to S3: %w", err)
	}
	for name, values := range c.Header {
		r.Header[name] = values
	}
	return nil
}

func signed(header string) bool {
	switch header {
	case "Content-Type", "Content-Md5", "Content-Encoding", "X-Amz-Storage-Class":
		return true
	}
	return false
}
