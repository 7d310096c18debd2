package build

import (
	"fmt"
	"os"
	"strings"

	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// readSecretKeys reads the keys of secret-key-files. They are not kept in memory.
func readSecretKeys(files []string) ([]pathinfo.SecretKey, error) {
	var keys []pathinfo.SecretKey
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read secret key: %w", err)
		}
		key, err := pathinfo.ParseSecretKey(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func signInfo(dir storepath.Dir, info *pathinfo.Info, keys []pathinfo.SecretKey) error {
	for _, key := range keys {
		if err := info.Sign(dir, key); err != nil {
			return err
		}
	}
	return nil
}

func signRealisation(r *pathinfo.Realisation, keys []pathinfo.SecretKey) {
	for _, key := range keys {
		r.SignByHash(key)
	}
}
