# The daemon, built by nixpkgs: pkgs.callPackage ./package.nix { }.
{
  lib,
  buildGoModule,
  stdenv,
  # A static shell, builders' /bin/sh where sandbox-paths names none.
  busybox-sandbox-shell ? null,
  # What --version tells.
  commit ? "",
}:

let
  source = builtins.readFile ../../daemon/version.go;
  version = builtins.head (builtins.match ".*\nconst Version = \"([^\"]*)\"\n.*" source);
  shell =
    if stdenv.hostPlatform.isLinux && busybox-sandbox-shell != null then
      "${busybox-sandbox-shell}/bin/busybox"
    else
      "";
in
buildGoModule {
  pname = "nixdaemon";
  inherit version;
  src = lib.cleanSource ../..;
  # Of the modules in go.sum; contrib/nix/vendor-hash prints it.
  vendorHash = "sha256-HBaJRYAgGz+pj+4O8WFKD2QM0wkOkhrIWjjYbTGEvYw=";
  subPackages = [ "daemon/cmd/nix-daemon" ];
  env.CGO_ENABLED = "0";
  ldflags = [
    "-s"
    "-w"
    "-X nixdaemon/daemon.commit=${commit}"
    "-X nixdaemon/daemon/config.sandboxShell=${shell}"
  ];
  # They need upstream's clients, and root.
  doCheck = false;
  meta = {
    description = "Daemon for the Nix package manager, in place of upstream's";
    license = lib.licenses.asl20;
    mainProgram = "nix-daemon";
    platforms = lib.platforms.unix;
  };
}
