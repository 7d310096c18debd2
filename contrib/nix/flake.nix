# nix build 'git+file:.?dir=contrib/nix', or as an input: the daemon's package, overlay and modules.
{
  description = "A nix-daemon written in Go";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
    in
    {
      packages = nixpkgs.lib.genAttrs systems (system: {
        default = nixpkgs.legacyPackages.${system}.callPackage ./package.nix {
          commit = self.shortRev or self.dirtyShortRev or "";
        };
      });
      overlays.default = import ./overlay.nix;
      nixosModules.default = ./nixos-module.nix;
      darwinModules.default = ./darwin-module.nix;
    };
}
