//go:build !linux

package roots

import (
	"context"
	"os"
	"os/exec"
)

// runtime asks lsof, which is slow: tests set a variable of upstream's to go without.
func (o *Options) runtime(ctx context.Context) (uses, error) {
	found := make(uses)
	if os.Getenv("_NIX_TEST_NO_LSOF") == "1" {
		return found, nil
	}
	out, err := exec.CommandContext(ctx, "lsof", "-n", "-w", "-F", "n").Output()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return found, nil // not installed, or not allowed to tell
	}
	for name := range lsofNames(out) {
		found.add(o, name, "{lsof}")
	}
	return found, nil
}
