package transfer

import (
	"net/url"
	"testing"
)

func TestProxyChoice(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		url  string
		want string
	}{
		{map[string]string{"HTTP_PROXY": "p"}, "http://h/", ""},
		{map[string]string{"HTTPS_PROXY": "p"}, "https://h/", "http://p"},
		{map[string]string{"https_proxy": "socks5://p:1"}, "https://h/", "socks5://p:1"},
		{map[string]string{"http_proxy": "p"}, "https://h/", ""},
		{map[string]string{"all_proxy": "p", "no_proxy": "*"}, "http://h/", ""},
		{map[string]string{"all_proxy": "p", "no_proxy": "a,.example.org b"}, "http://www.Example.org/", ""},
		{map[string]string{"all_proxy": "p", "no_proxy": "example.org"}, "http://notexample.org/", "http://p"},
		{map[string]string{"all_proxy": "p", "NO_PROXY": "10.0.0.0/8"}, "http://10.1.2.3/", ""},
		{map[string]string{"all_proxy": "p", "no_proxy": "[::1]"}, "http://[::1]:80/", ""},
		{map[string]string{"all_proxy": "p", "no_proxy": "0.1"}, "http://127.0.0.1/", "http://p"},
	} {
		u, err := url.Parse(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		got, err := proxies{func(name string) string { return tt.env[name] }}.find(u)
		text := ""
		if got != nil {
			text = got.String()
		}
		if err != nil || text != tt.want {
			t.Errorf("%v %s: got %q, %v, want %q", tt.env, tt.url, text, err, tt.want)
		}
	}
}
