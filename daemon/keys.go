package daemon

import (
	"os"
	"slices"
	"strings"
	"sync"

	"nixdaemon/protocol/pathinfo"
	"nixdaemon/worker/settings"
)

// keyring turns the key settings into keys, and remembers the last answer:
// nearly all connections have the daemon's own settings.
type keyring struct {
	mu           sync.Mutex
	public, file []string
	trusted      pathinfo.Keys
}

// trustedKeys are trusted-public-keys and the public halves of
// secret-key-files. A key that cannot be read vouches for nothing.
func (k *keyring) trustedKeys(s *settings.Settings) pathinfo.Keys {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.trusted != nil && slices.Equal(k.public, s.TrustedPublicKeys) && slices.Equal(k.file, s.SecretKeyFiles) {
		return k.trusted
	}
	keys := make(pathinfo.Keys)
	for _, text := range s.TrustedPublicKeys {
		if key, err := pathinfo.ParsePublicKey(text); err == nil {
			keys.Add(key)
		}
	}
	for _, key := range secretKeys(s) {
		keys.Add(key.Public())
	}
	k.public, k.file, k.trusted = s.TrustedPublicKeys, s.SecretKeyFiles, keys
	return keys
}

// secretKeys reads the files of secret-key-files.
func secretKeys(s *settings.Settings) []pathinfo.SecretKey {
	var keys []pathinfo.SecretKey
	for _, file := range s.SecretKeyFiles {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if key, err := pathinfo.ParseSecretKey(strings.TrimSpace(string(text))); err == nil {
			keys = append(keys, key)
		}
	}
	return keys
}
