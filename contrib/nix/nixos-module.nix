# NixOS: this daemon in place of the one of nix.package, which stays for the clients.
#
#   imports = [ .../contrib/nix/nixos-module.nix ];
#   services.nixdaemon.enable = true;
#
# Settings stay where they are, in nix.settings.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.nixdaemon;
in
{
  imports = [ ./options.nix ];

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = config.nix.enable;
        message = "services.nixdaemon needs nix.enable: it takes the place of that daemon.";
      }
    ];

    # The unit is that of nix.package with these lines over it. Socket, mounts and build users stay as they are.
    systemd.services.nix-daemon.serviceConfig = {
      Type = lib.mkForce "notify";
      NotifyAccess = "main";
      # The first, empty, takes the unit's own away.
      ExecStart = lib.mkForce [
        ""
        "@${cfg.package}/bin/nix-daemon nix-daemon --daemon"
      ];
      # So that it can be started anew while builds with limits go on.
      ExecStopPost = "-${cfg.package}/bin/nix-daemon --release-cgroups";
      ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
      Restart = "on-failure";
      WatchdogSec = 60;
      Delegate = lib.mkForce "memory pids";
      OOMPolicy = "continue";
    };
  };
}
