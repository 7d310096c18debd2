package wire

import (
	"bytes"
	"errors"
	"testing"
)

// purse is a ledger that holds so many bytes.
type purse int64

func (p *purse) Take(n int64) bool {
	if n > int64(*p) {
		return false
	}
	*p -= purse(n)
	return true
}

func (p *purse) Give(n int64) { *p += purse(n) }

// stringsOf encodes strings of these lengths.
func stringsOf(t *testing.T, lengths ...int) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, n := range lengths {
		w.Bytes(make([]byte, n))
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestLedger(t *testing.T) {
	p := purse(3 * ledgerStep)
	r := NewReader(stringsOf(t, FreeClaim, 1, 2*ledgerStep-2, 2, 5*ledgerStep))
	r.Share(&p)
	r.SetBudget(MaxRequest)
	for i, left := range []purse{3, 2, 1, 0} {
		if _, err := r.Bytes(MaxString); err != nil || p != left*ledgerStep {
			t.Fatalf("string %d: %v, the ledger has %d, want %d", i, err, p, left*ledgerStep)
		}
	}
	if _, err := r.Bytes(MaxString); !errors.Is(err, ErrMemory) {
		t.Errorf("got %v beyond what the ledger has", err)
	}
	r.SetBudget(MaxRequest)
	if p != 3*ledgerStep {
		t.Errorf("the next request finds %d", p)
	}
	r.Release()
	if p != 3*ledgerStep {
		t.Errorf("given back twice: %d", p)
	}
}

// An ordinary request does not look at the ledger, however often there is one.
func TestLedgerFreeClaim(t *testing.T) {
	var p purse
	lengths := make([]int, 40)
	for i := range lengths {
		lengths[i] = FreeClaim
	}
	r := NewReader(stringsOf(t, lengths...))
	r.Share(&p)
	for range lengths {
		r.SetBudget(MaxRequest)
		if _, err := r.Bytes(MaxString); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRefund(t *testing.T) {
	p := purse(ledgerStep)
	lengths := make([]int, 100)
	for i := range lengths {
		lengths[i] = FreeClaim
	}
	r := NewReader(stringsOf(t, lengths...))
	r.Share(&p)
	r.SetBudget(2 * FreeClaim)
	for range lengths {
		b, err := r.Bytes(MaxString)
		if err != nil {
			t.Fatal(err)
		}
		r.Refund(len(b))
	}
	if err := r.Charge(2*FreeClaim + 1); !errors.Is(err, ErrBudget) {
		t.Errorf("refunds raised the bound on the request: %v", err)
	}
}

func TestResetGivesBack(t *testing.T) {
	p := purse(ledgerStep)
	r := NewReader(stringsOf(t, FreeClaim+1))
	r.Share(&p)
	r.SetBudget(MaxRequest)
	if _, err := r.Bytes(MaxString); err != nil || p != 0 {
		t.Fatal(err, p)
	}
	r.Reset(stringsOf(t, 1))
	if p != ledgerStep {
		t.Errorf("the ledger has %d", p)
	}
	if r.Ledger() != nil {
		t.Error("reset keeps the ledger")
	}
}
