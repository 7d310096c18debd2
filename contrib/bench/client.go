package main

import (
	"strconv"
	"time"
)

// expression makes so many derivations that no other call makes.
const expression = `{ count, tag }:
builtins.genList (i: derivation {
  name = "${tag}-${toString i}";
  system = "x86_64-linux";
  builder = "/bin/sh";
  args = [ "-c" "echo ${toString i} >$out" ];
  text = builtins.concatStringsSep " " (builtins.genList (j: "contents ${toString j}") 80);
}) (builtins.fromJSON count)`

// instantiate has a real client write 2,000 derivations, directly to the store
// and through the daemon, and leaves the ratio of the times.
func instantiate(b *bench) (float64, error) {
	count := b.n(2000)
	if _, err := b.evaluate("daemon", "first", 1); err != nil { // the program is in memory from now on
		return 0, err
	}
	direct, err := b.evaluate("local", "direct", count)
	if err != nil {
		return 0, err
	}
	through, err := b.evaluate("daemon", "through", count)
	b.state = through.Seconds() / direct.Seconds()
	return float64(count), err
}

func (b *bench) evaluate(remote, tag string, count int) (time.Duration, error) {
	begin := time.Now()
	err := b.command(b.ctx, b.scratch.client, remote, "-E", expression, "--argstr", "tag", tag, "--argstr", "count", strconv.Itoa(count))
	return time.Since(begin), err
}
