# What both modules, for NixOS and for nix-darwin, let their users set.
{ lib, pkgs, ... }:

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
}
