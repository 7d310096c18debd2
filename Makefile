# demo   an upstream client builds a small C program through the daemon
# test   everything: formatting, vet, static checks, unit and compatibility tests
# bench  the daemon beside upstream's, with ratios
# lint   only what reads the code
# install  the binary into PREFIX/bin, the service files beside it; SANDBOX_SHELL is a static shell for builders' /bin/sh
PREFIX ?= /usr/local
SYSTEMD ?= $(PREFIX)/lib/systemd/system
ifeq ($(shell uname -s),Darwin)
SERVICES = /Library/LaunchDaemons
SERVICE_FILES = contrib/launchd/org.nixos.nix-daemon.plist
else
SERVICES = $(SYSTEMD)
SERVICE_FILES = contrib/systemd/nix-daemon.service contrib/systemd/nix-daemon.socket
endif
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: demo test bench lint install

demo:
	contrib/demo/run

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "these files are not formatted"; exit 1; }
	CGO_ENABLED=0 GOOS=linux go vet ./...
	CGO_ENABLED=0 GOOS=darwin GOARCH=amd64 go vet ./...
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go vet ./...
	CGO_ENABLED=0 GOOS=darwin GOARCH=amd64 go build ./...
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go build ./...
	CGO_ENABLED=0 go run $(STATICCHECK) ./...

test: lint
	contrib/test/run

bench:
	contrib/bench/run

install:
	CGO_ENABLED=0 go build -trimpath -ldflags '-X nixdaemon/daemon/config.sandboxShell=$(SANDBOX_SHELL)' -o nix-daemon.new ./daemon/cmd/nix-daemon
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(SERVICES)
	install -m 755 nix-daemon.new $(DESTDIR)$(PREFIX)/bin/nix-daemon
	rm -f nix-daemon.new
	install -m 644 $(SERVICE_FILES) $(DESTDIR)$(SERVICES)
