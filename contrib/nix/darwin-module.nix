# nix-darwin: this daemon in place of the one of nix.package, which stays for the clients.
#
#   imports = [ .../contrib/nix/darwin-module.nix ];
#   services.nixdaemon.enable = true;
{
  config,
  lib,
  ...
}:

let
  cfg = config.services.nixdaemon;
in
{
  imports = [ ./options.nix ];

  config = lib.mkIf cfg.enable {
    launchd.daemons.nix-daemon.command = lib.mkForce "${cfg.package}/bin/nix-daemon";
  };
}
