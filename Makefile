# demo   an upstream client builds a small C program through the daemon
# test   everything: formatting, vet, static checks, unit and compatibility tests
# bench  the daemon beside upstream's, with ratios
# lint   only what reads the code
# build  the program, bin/nix-daemon; SANDBOX_SHELL is a static shell for builders' /bin/sh
# install  the program into PREFIX/bin, the service files beside it
# release  static tarballs and Debian packages for amd64 and arm64, into release/
PREFIX ?= /usr/local
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
export PREFIX DESTDIR SERVICES

.PHONY: demo test bench lint build install release

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

build:
	SANDBOX_SHELL='$(SANDBOX_SHELL)' contrib/release/compile bin/nix-daemon

install: build
	contrib/install bin/nix-daemon

release:
	contrib/release/build release
