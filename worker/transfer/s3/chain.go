package s3

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
)

const (
	// keysTimeout bounds how long keys are looked for, as upstream does.
	keysTimeout = 30 * time.Second
	// failureTime is for how long it is believed that there are none.
	failureTime = time.Minute
	// maxProfiles bounds how many profiles are remembered.
	maxProfiles = 64
)

// Chain finds the keys of profiles and remembers them until they expire. Its methods may be called from any goroutine.
type Chain struct {
	getenv func(string) string

	mu       sync.Mutex
	profiles map[string]*profile
}

// profile is what is known of one. Whoever looks for keys, or at the rest, has its turn: so this is done once, and
// whoever waits can give up.
type profile struct {
	turn     chan struct{}
	provider aws.CredentialsProvider
	err      error
	failed   time.Time
}

// NewChain looks for keys in the daemon's own environment and its user's files. Nothing is read before the first
// [Chain.Keys]. Getenv is [os.Getenv] if nil; it is asked for static keys only.
func NewChain(getenv func(string) string) *Chain {
	if getenv == nil {
		getenv = os.Getenv
	}
	return &Chain{getenv: getenv, profiles: make(map[string]*profile)}
}

// Keys finds the keys of a profile, "" for the default one.
func (c *Chain) Keys(ctx context.Context, name string) (Keys, error) {
	// First of all, whatever the profile; the SDK would prefer a profile that was named.
	if id, secret := c.getenv("AWS_ACCESS_KEY_ID"), c.getenv("AWS_SECRET_ACCESS_KEY"); id != "" && secret != "" {
		return Keys{id, secret, c.getenv("AWS_SESSION_TOKEN")}, nil
	}
	p := c.profile(name)
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return Keys{}, context.Cause(ctx)
	}
	defer func() { <-p.turn }()
	if p.err != nil && time.Since(p.failed) < failureTime {
		return Keys{}, p.err
	}
	limited, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	keys, err := p.keys(limited, name)
	if err != nil && ctx.Err() != nil {
		return Keys{}, context.Cause(ctx) // which says nothing of the keys
	}
	p.err, p.failed = err, time.Now()
	return keys, err
}

func (c *Chain) profile(name string) *profile {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.profiles[name]
	if p == nil {
		if len(c.profiles) >= maxProfiles {
			clear(c.profiles)
		}
		p = &profile{turn: make(chan struct{}, 1)}
		c.profiles[name] = p
	}
	return p
}

func (p *profile) keys(ctx context.Context, name string) (Keys, error) {
	if p.provider == nil {
		var options []func(*config.LoadOptions) error
		if name != "" {
			options = append(options, config.WithSharedConfigProfile(name))
		}
		loaded, err := config.LoadDefaultConfig(ctx, options...)
		if err != nil {
			return Keys{}, err
		}
		if loaded.Credentials == nil {
			return Keys{}, errors.New("no credentials")
		}
		p.provider = loaded.Credentials
	}
	creds, err := p.provider.Retrieve(ctx)
	if err != nil {
		p.provider = nil // files may be mended
		return Keys{}, err
	}
	return Keys{creds.AccessKeyID, creds.SecretAccessKey, creds.SessionToken}, nil
}

// Warning is the text about a location that is asked for without signatures, since there are no keys.
func Warning(l *Location, err error) string {
	where := "s3://" + l.Bucket
	if u, e := l.HTTPS(); e == nil {
		where = u.String()
	}
	return fmt.Sprintf("AWS authentication failed for S3 request %s: %v", where, err)
}
