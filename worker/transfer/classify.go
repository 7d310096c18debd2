package transfer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// curlCode is a libcurl error number (curl/curl.h); messages have it and its text.
type curlCode int

const (
	curlOK                  curlCode = 0
	curlUnsupportedProtocol curlCode = 1
	curlURLMalformat        curlCode = 3
	curlCouldntResolveHost  curlCode = 6
	curlCouldntConnect      curlCode = 7
	curlPartialFile         curlCode = 18
	curlTimedOut            curlCode = 28
	curlRangeError          curlCode = 33
	curlSSLConnectError     curlCode = 35
	curlCouldntReadFile     curlCode = 37
	curlTooManyRedirects    curlCode = 47
	curlGotNothing          curlCode = 52
	curlRecvError           curlCode = 56
	curlSendError           curlCode = 55
	curlCertProblem         curlCode = 58
	curlPeerFailed          curlCode = 60
	curlBadContentEncoding  curlCode = 61
	curlCACertBadFile       curlCode = 77
)

// text is libcurl's own (lib/strerror.c).
func (c curlCode) text() string {
	return map[curlCode]string{
		curlUnsupportedProtocol: "Unsupported protocol",
		curlURLMalformat:        "URL using bad/illegal format or missing URL",
		curlCouldntResolveHost:  "Could not resolve hostname",
		curlCouldntConnect:      "Could not connect to server",
		curlPartialFile:         "Transferred a partial file",
		curlTimedOut:            "Timeout was reached",
		curlRangeError:          "Requested range was not delivered by the server",
		curlSSLConnectError:     "SSL connect error",
		curlCouldntReadFile:     "Could not read a file:// file",
		curlTooManyRedirects:    "Number of redirects hit maximum amount",
		curlGotNothing:          "Server returned nothing (no headers, no data)",
		curlRecvError:           "Failure when receiving data from the peer",
		curlSendError:           "Failed sending data to the peer",
		curlCertProblem:         "Problem with the local SSL certificate",
		curlPeerFailed:          "SSL peer certificate or SSH remote key was not OK",
		curlBadContentEncoding:  "Unrecognized or bad HTTP Content or Transfer-Encoding",
		curlCACertBadFile:       "Problem with the SSL CA cert (path? access rights?)",
	}[c]
}

// errStalled is the cause when a server has been silent for too long.
var errStalled = errors.New("stalled")

// classify finds libcurl's number for an error of the network.
func classify(ctx context.Context, err error, u *url.URL, stalled time.Duration, began time.Time) *fault {
	elapsed := time.Since(began).Milliseconds()
	if context.Cause(ctx) == errStalled {
		return &fault{code: curlTimedOut, detail: fmt.Sprintf(
			"Operation too slow. Less than 1 bytes/sec transferred the last %d seconds", int(stalled.Seconds()))}
	}
	if t := classifyTLS(err); t != nil {
		return t
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsTimeout {
			return &fault{code: curlTimedOut, detail: fmt.Sprintf("Resolving timed out after %d milliseconds", elapsed)}
		}
		return &fault{code: curlCouldntResolveHost, detail: "Could not resolve host: " + dns.Name}
	}
	op, isOp := errors.AsType[*net.OpError](err)
	var timeout interface{ Timeout() bool }
	switch {
	case isOp && op.Op == "dial" && !op.Timeout():
		return &fault{code: curlCouldntConnect, detail: fmt.Sprintf("Failed to connect to %s after %d ms: %s",
			curlHostPort(u), elapsed, curlCouldntConnect.text())}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &fault{code: curlTimedOut, detail: fmt.Sprintf("Connection timed out after %d milliseconds", elapsed)}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &fault{code: curlGotNothing, detail: "Empty reply from server"}
	case errors.Is(err, unix.ECONNRESET):
		return &fault{code: curlRecvError, detail: "Recv failure: Connection reset by peer"}
	case strings.Contains(err.Error(), "malformed HTTP"):
		return &fault{code: curlUnsupportedProtocol, detail: "Received HTTP/0.9 when not allowed"}
	case strings.Contains(err.Error(), "response headers exceeded"):
		return &fault{code: curlRecvError, detail: fmt.Sprintf("Too large response headers: more than %d", maxHeader)}
	}
	_, detail, cut := strings.Cut(err.Error(), "transport connection broken: ")
	if !cut {
		detail = err.Error()
	}
	return &fault{code: curlRecvError, detail: detail}
}

// curlHostPort is hostPort as libcurl writes it: without brackets around an address of IPv6.
func curlHostPort(u *url.URL) string {
	return strings.NewReplacer("[", "", "]", "").Replace(hostPort(u))
}

// classifyTLS is nil for errors that have nothing to do with TLS.
func classifyTLS(err error) *fault {
	problem := func(text string) *fault {
		return &fault{code: curlPeerFailed, detail: text}
	}
	if host, ok := errors.AsType[x509.HostnameError](err); ok {
		return problem("SSL: no alternative certificate subject name matches target host name '" + host.Host + "'")
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return problem("SSL certificate problem: certificate has expired")
		}
		return problem("SSL certificate problem: " + invalid.Error())
	}
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		if c := unknown.Cert; c != nil && c.CheckSignatureFrom(c) == nil {
			return problem("SSL certificate problem: self-signed certificate")
		}
		return problem("SSL certificate problem: unable to get local issuer certificate")
	}
	if verify, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return problem("SSL certificate problem: " + verify.Err.Error())
	}
	var record tls.RecordHeaderError
	var alert tls.AlertError
	if errors.As(err, &record) || errors.As(err, &alert) || strings.Contains(err.Error(), "tls: ") ||
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return &fault{code: curlSSLConnectError, detail: err.Error()}
	}
	return nil
}
