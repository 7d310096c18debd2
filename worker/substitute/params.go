package substitute

import (
	"slices"
	"strconv"
	"strings"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// params are the parameters of a store reference that are understood here, each with the meaning of zero.
type params struct {
	storeDir      storepath.Dir // "" is the daemon's own
	trusted       bool
	priority      *int  // nil: as the store says itself
	wantMassQuery *bool // nil: as the store says itself
}

// otherParams are those that belong to how objects are reached, which whoever does that reads, and to writing.
var otherParams = []string{"compression", "compression-level", "parallel-compression", "write-nar-listing", "index-debug-info",
	"secret-key", "secret-keys", "narinfo-compression", "ls-compression", "log-compression",
	"system-features", "local-nar-cache", "tls-certificate", "tls-private-key",
	"profile", "region", "scheme", "endpoint", "addressing-style", "multipart-upload", "multipart-chunk-size", "buffer-size",
	"multipart-threshold", "storage-class", "versionId", "root", "state", "log", "real", "read-only", "require-sigs", "build-dir"}

// parseParams reads the parameters and warns of those that nobody knows.
func parseParams(ref settings.StoreReference, log activity.Sink) (params, error) {
	var p params
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
		p.trusted, err = settings.ParseBool(name, value)
	case "priority":
		p.priority, err = parseInt(name, value)
	case "want-mass-query":
		var want bool
		want, err = settings.ParseBool(name, value)
		p.wantMassQuery = &want
	case "path-info-cache-size": // there is one for all stores, but nonsense is told
		_, err = parseInt(name, value)
	default:
		return false, nil
	}
	return true, err
}

func parseInt(name, value string) (*int, error) {
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil {
		return nil, errorf(err, "setting '%s' has invalid value '%s'", name, value)
	}
	i := int(n)
	return &i, nil
}

func (p *params) priorityOr(otherwise int) int {
	if p.priority != nil {
		return *p.priority
	}
	return otherwise
}
