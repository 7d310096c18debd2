package localstoretest_test

import (
	"context"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/localstore/localstoretest"
	"nixdaemon/protocol/storepath"
)

func TestContractLocal(t *testing.T) {
	localstoretest.Run(t, func(t *testing.T) localstoretest.Store {
		return localstoretest.Local{Store: localstoretest.New(t, nil)}
	})
}

// TestContractElsewhere: a store whose paths are printed with another directory than that of its files.
func TestContractElsewhere(t *testing.T) {
	localstoretest.Run(t, func(t *testing.T) localstoretest.Store {
		return localstoretest.Local{Store: localstoretest.New(t, func(o *localstore.Options) {
			o.RealDir = string(o.StoreDir)
			o.StoreDir = storepath.DefaultDir
			o.UseWAL = false
		})}
	})
}

func TestLoad(t *testing.T) {
	s := localstoretest.New(t, nil)
	paths := localstoretest.Load(t, s, `
-- libc --
the library
-- hello libc --
uses @libc@
`)
	closure, err := s.Closure(context.Background(), []storepath.Path{paths["hello"]}, localstore.ClosureOptions{})
	if err != nil || len(closure) != 2 || !storepath.Contains(closure, paths["libc"]) {
		t.Error(closure, err)
	}
}
