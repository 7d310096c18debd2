package substitute

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// params are the parameters of a store reference that are understood here, each with the meaning of zero.
type params struct {
	storeDir      storepath.Dir // "" is the daemon's own
	trusted       bool
	priority      *int  // nil: as the store says itself
	wantMassQuery *bool // nil: as the store says itself

	// What follows is for writing to a binary cache.
	compression      string // "" is xz
	compressionLevel int    // -1: the method's default
	parallel         bool
	writeListing     bool
	indexDebugInfo   bool
	secretKeys       []string // files

	narinfoCompression, lsCompression, logCompression string // "" for none
}

// otherParams are those that belong to how objects are reached; whoever does that reads them.
var otherParams = []string{"path-info-cache-size", "system-features", "local-nar-cache", "tls-certificate", "tls-private-key",
	"profile", "region", "scheme", "endpoint", "addressing-style", "multipart-upload", "multipart-chunk-size", "buffer-size",
	"multipart-threshold", "storage-class", "versionId", "root", "state", "log", "real", "read-only", "require-sigs", "build-dir"}

// parseParams reads the parameters and warns of those that nobody knows.
func parseParams(ref settings.StoreReference, log activity.Sink) (params, error) {
	p := params{compressionLevel: -1}
	for _, param := range ref.Params {
		known, err := p.set(param.Name, param.Value)
		if err != nil {
			return p, err
		}
		if !known && !slices.Contains(otherParams, param.Name) {
			warn(log, errorf(nil, "unknown setting '%s'", param.Name))
		}
	}
	return p, nil
}

func (p *params) set(name, value string) (known bool, err error) {
	switch name {
	case "store":
		p.storeDir = storepath.Dir(strings.TrimRight(value, "/"))
	case "trusted":
		p.trusted, err = parseBool(name, value)
	case "priority":
		p.priority, err = parseInt(name, value)
	case "want-mass-query":
		var want bool
		want, err = parseBool(name, value)
		p.wantMassQuery = &want
	default:
		return p.setWriting(name, value)
	}
	return true, err
}

func (p *params) setWriting(name, value string) (known bool, err error) {
	switch name {
	case "compression":
		p.compression = value
	case "compression-level":
		var level *int
		if level, err = parseInt(name, value); err == nil {
			p.compressionLevel = *level
		}
	case "parallel-compression":
		p.parallel, err = parseBool(name, value)
	case "write-nar-listing":
		p.writeListing, err = parseBool(name, value)
	case "index-debug-info":
		p.indexDebugInfo, err = parseBool(name, value)
	case "secret-key":
		if value != "" {
			p.secretKeys = append(p.secretKeys, value)
		}
	case "secret-keys":
		for file := range strings.SplitSeq(value, ",") {
			if file != "" {
				p.secretKeys = append(p.secretKeys, file)
			}
		}
	case "narinfo-compression":
		p.narinfoCompression = value
	case "ls-compression":
		p.lsCompression = value
	case "log-compression":
		p.logCompression = value
	default:
		return false, nil
	}
	return true, err
}

func parseBool(name, value string) (bool, error) {
	switch value {
	case "true", "yes", "1":
		return true, nil
	case "false", "no", "0":
		return false, nil
	}
	return false, errorf(nil, "Boolean setting '%s' has invalid value '%s'", name, value)
}

func parseInt(name, value string) (*int, error) {
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil {
		return nil, errorf(err, "setting '%s' has invalid value '%s'", name, value)
	}
	i := int(n)
	return &i, nil
}

// keys reads the secret keys that what is written is signed with.
func (p *params) keys() ([]pathinfo.SecretKey, error) {
	var keys []pathinfo.SecretKey
	for _, file := range p.secretKeys {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		key, err := pathinfo.ParseSecretKey(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func (p *params) priorityOr(otherwise int) int {
	if p.priority != nil {
		return *p.priority
	}
	return otherwise
}
