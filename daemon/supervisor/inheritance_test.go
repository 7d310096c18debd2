package supervisor

import (
	"os"
	"testing"
)

func TestInheritance(t *testing.T) {
	for _, bad := range []string{"", "7", "100:7:serving", "x 100:7:serving", "1 100:7:serving", "7 100:7", "7 100:2:serving", "7 100:x:serving", "7 :7:serving"} {
		t.Setenv(inheritance, bad)
		if in, err := Inherit(); err == nil {
			t.Errorf("%q: got %+v", bad, in)
		}
		if _, ok := os.LookupEnv(inheritance); ok {
			t.Errorf("%q: servers would see the variable", bad)
		}
	}
	if in, err := Inherit(); in != nil || err != nil {
		t.Errorf("nothing inherited: got %v, %v", in, err)
	}
	in, err := parseInheritance("1007 1008 4711:1009:serving 4712:1010:draining")
	if err != nil {
		t.Fatal(err)
	}
	if len(in.Listeners) != 2 || in.Listeners[1] != 1008 || len(in.servers) != 2 || in.servers[1] != (heir{4712, 1010, draining}) {
		t.Errorf("got %+v", in)
	}
}
