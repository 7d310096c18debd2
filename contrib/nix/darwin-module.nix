# nix-darwin: this daemon in place of the one of nix.package, which stays for the clients.
#
#   imports = [ .../contrib/nix/darwin-module.nix ];
#   services.nixdaemon.enable = true;
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
  options.services.nixdaemon = {
    enable = lib.mkEnableOption "nixdaemon as the Nix daemon, in place of that of nix.package";
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.nixdaemon or (pkgs.callPackage ./package.nix { });
      defaultText = lib.literalExpression "pkgs.nixdaemon";
      description = "The package with bin/nix-daemon.";
    };
  };

  config = lib.mkIf cfg.enable {
    launchd.daemons.nix-daemon.command = lib.mkForce "${cfg.package}/bin/nix-daemon";
  };
}
