package peer

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nixdaemon/worker/remote/ssh"
	"nixdaemon/worker/settings"
)

func TestParse(t *testing.T) {
	d := Defaults{SocketPath: "/run/nix/socket", SystemFeatures: []string{"kvm"}}
	tests := []struct {
		uri, fails string
		want       Config
		command    []string
	}{
		{uri: "daemon", want: Config{URI: "daemon", SocketPath: "/run/nix/socket"}},
		{uri: "unix://", want: Config{URI: "daemon", SocketPath: "/run/nix/socket"}},
		{uri: "unix:///other?root=/x&odd=1&trusted=1&priority=-5&want-mass-query=true&system-features=a%20b",
			want: Config{URI: "unix:///other", SocketPath: "/other", Trusted: true, Priority: -5, WantMassQuery: true,
				SystemFeatures: []string{"a", "b"}, Unknown: []string{"odd"}}},
		{uri: "ssh-ng://me@host:22?max-connections=4&max-connection-age=60&ssh-key=/k&base64-ssh-public-host-key=QQ==&compress=true&remote-store=/mnt&store=/s",
			want: Config{Kind: SSHNG, URI: "ssh-ng://me@host:22", Dir: "/s", MaxConnections: 4, MaxConnectionAge: time.Minute,
				KeyFile: "/k", HostKey: "QQ==", Compress: true, RemoteStore: "/mnt", RemoteProgram: []string{"nix-daemon"}},
			command: []string{"nix-daemon", "--stdio", "--store", "/mnt"}},
		{uri: "ssh-ng://host?remote-program=sudo%20nix-daemon&max-connections=0",
			want:    Config{Kind: SSHNG, URI: "ssh-ng://host", RemoteProgram: []string{"sudo", "nix-daemon"}},
			command: []string{"sudo", "nix-daemon", "--stdio"}},
		{uri: "ssh://host?remote-store=auto&log-fd=4&max-connection-age=3",
			want:    Config{Kind: SSH, URI: "ssh://host", RemoteProgram: []string{"nix-store"}, RemoteStore: "auto", Unknown: []string{"max-connection-age"}},
			command: []string{"nix-store", "--serve", "--write", "--store", "auto"}},
		{uri: "mounted-ssh-ng://host?remote-store=/mnt&root=/x",
			want:    Config{Kind: SSHNG, Mounted: true, URI: "ssh-ng://host", RemoteProgram: []string{"nix-daemon"}, RemoteStore: "/mnt"},
			command: []string{"nix-daemon", "--stdio", "--store", "/mnt", "--process-ops"}},
		{uri: "ssh-ng://", fails: "invalid SSH authority: '': host name must not be empty"},
		{uri: "ssh-ng://host?compress=maybe", fails: "Boolean setting 'compress' has invalid value 'maybe'"},
		{uri: "ssh-ng://host?max-connections=x", fails: "setting 'max-connections' has invalid value 'x'"},
		{uri: "http://host", fails: "don't know how to open Nix store with scheme 'http'"},
	}
	for _, tt := range tests {
		t.Run(tt.uri, func(t *testing.T) {
			ref, err := settings.ParseStoreReference(tt.uri)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Parse(ref, d)
			if tt.fails != "" {
				if err == nil || err.Error() != tt.fails {
					t.Errorf("error %v, want %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.want.Dir == "" {
				tt.want.Dir = "/nix/store"
			}
			tt.want.MaxConnections = max(1, tt.want.MaxConnections)
			if tt.want.SystemFeatures == nil {
				tt.want.SystemFeatures = d.SystemFeatures
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreTypes(ssh.Authority{})); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
			if tt.command != nil {
				if diff := cmp.Diff(tt.command, got.Command()); diff != "" {
					t.Errorf("command (-want +got):\n%s", diff)
				}
			}
		})
	}
}
