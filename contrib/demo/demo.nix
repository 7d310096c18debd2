# A C program in four derivations: its source, fetched under a hash that is
# known beforehand; a library; a program that refers to the library; and a
# manual, an output of its own. Builders use the machine's compiler.
let
  make = attrs: derivation ({
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/local/bin:/usr/bin:/bin";
  } // attrs // { args = [ "-e" "-c" attrs.script ]; });

  source = make {
    name = "greet-source";
    url = toString ./src;
    script = "cp -r $url $out";
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
    outputHash = "0d74gahnw7apjypjj22s7bznxwmv74ihp2fn3zri7vrhgmj9xjam";
  };

  library = make {
    name = "libgreet-1.0";
    inherit source;
    script = ''
      mkdir -p $out/lib $out/include
      echo "compiling the library"
      gcc -shared -fPIC -O2 -o $out/lib/libgreet.so $source/greet.c
      cp $source/greet.h $out/include
    '';
  };
in
make {
  name = "greet-1.0";
  outputs = [ "out" "man" ];
  inherit source library;
  script = ''
    mkdir -p $out/bin $man
    echo "compiling the program"
    gcc -O2 -I$library/include -o $out/bin/greet $source/main.c -L$library/lib -lgreet -Wl,-rpath,$library/lib
    echo "greet(1): says hello; see $out/bin/greet" >$man/greet.txt
  '';
}
