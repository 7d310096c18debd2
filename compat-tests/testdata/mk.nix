# import ./mk.nix NAME SCRIPT MORE: a derivation that runs a shell script.
name: script: more:
derivation ({
  inherit name;
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ "-ec" script ];
  PATH = "/usr/bin:/bin";
} // more)
