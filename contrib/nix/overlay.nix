# pkgs.nixdaemon
final: prev: {
  nixdaemon = final.callPackage ./package.nix { };
}
