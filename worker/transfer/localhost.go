package transfer

import (
	"context"
	"errors"
	"net"
	"strings"
)

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// dialLocalhost has names beneath localhost lead to this machine, whatever a name server says of them, as libcurl does
// (RFC 6761, section 6.3): so a bucket of an S3 server here can be named in its host.
func dialLocalhost(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil || !beneathLocalhost(host) {
			return dial(ctx, network, address)
		}
		conn, err := dial(ctx, network, net.JoinHostPort("127.0.0.1", port))
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
		conn, err6 := dial(ctx, network, net.JoinHostPort("::1", port))
		if err6 != nil {
			return nil, errors.Join(err, err6)
		}
		return conn, nil
	}
}

func beneathLocalhost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return strings.HasSuffix(host, ".localhost")
}
