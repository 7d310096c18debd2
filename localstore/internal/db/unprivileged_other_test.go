//go:build !linux

package db

import (
	"os"
	"testing"
)

// unprivileged runs do as a user who may not write what is not theirs.
func unprivileged(t *testing.T, do func()) {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Skip("missing: an unprivileged user; root may write everywhere")
	}
	do()
}
