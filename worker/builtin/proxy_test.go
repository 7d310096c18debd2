package builtin

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestFetchProxy(t *testing.T) {
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "proxy for "+r.RequestURI) })
	host := strings.TrimPrefix(proxy, "http://")
	const u = "http://nowhere.invalid/x"
	for _, env := range []string{"http_proxy=" + proxy, "http_proxy=" + host, "all_proxy=" + proxy, "ALL_PROXY=" + proxy} {
		if got := do(t, "fetchurl", fetch(u), env).contents(t); got != "proxy for "+u {
			t.Errorf("%s: got %q", env, got)
		}
	}
}
