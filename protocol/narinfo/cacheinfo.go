package narinfo

import (
	"fmt"
	"strconv"
	"strings"

	"nixdaemon/protocol/storepath"
)

// CacheInfo is the content of nix-cache-info.
type CacheInfo struct {
	// StoreDir is the store directory that the paths are for; "" when the
	// file does not say.
	StoreDir storepath.Dir
	// WantMassQuery is nil when the file does not say.
	WantMassQuery *bool
	// Priority is nil when the file does not say; lower is asked first.
	Priority *int
}

// ParseCacheInfo reads a nix-cache-info. Lines without a colon and names that
// are not known are ignored (libstore/binary-cache-store.cc).
func ParseCacheInfo(text string) (CacheInfo, error) {
	var c CacheInfo
	for line := range strings.SplitSeq(text, "\n") {
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \n\r\t")
		switch {
		case !ok:
		case name == "StoreDir":
			c.StoreDir = storepath.Dir(value)
		case name == "WantMassQuery":
			want := value == "1"
			c.WantMassQuery = &want
		case name == "Priority":
			priority, err := leadingInt(value)
			if err != nil {
				return CacheInfo{}, err
			}
			c.Priority = &priority
		}
	}
	return c, nil
}

// leadingInt reads a number and ignores what follows it, as C does.
func leadingInt(s string) (int, error) {
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || end == 0 && (s[0] == '-' || s[0] == '+')) {
		end++
	}
	n, err := strconv.ParseInt(s[:end], 10, 32)
	if err != nil {
		return 0, fmt.Errorf("read Priority of nix-cache-info: '%s' is not a number", s)
	}
	return int(n), nil
}

// CheckStoreDir refuses a cache, named for the message, whose paths are for
// another store directory.
func (c CacheInfo) CheckStoreDir(cache string, dir storepath.Dir) error {
	if c.StoreDir == "" || c.StoreDir == dir {
		return nil
	}
	return fmt.Errorf("binary cache '%s' is for Nix stores with prefix '%s', not '%s'", cache, c.StoreDir, dir)
}

// String writes what ParseCacheInfo reads.
func (c CacheInfo) String() string {
	var b strings.Builder
	if c.StoreDir != "" {
		fmt.Fprintf(&b, "StoreDir: %s\n", c.StoreDir)
	}
	if c.WantMassQuery != nil {
		want := 0
		if *c.WantMassQuery {
			want = 1
		}
		fmt.Fprintf(&b, "WantMassQuery: %d\n", want)
	}
	if c.Priority != nil {
		fmt.Fprintf(&b, "Priority: %d\n", *c.Priority)
	}
	return b.String()
}
