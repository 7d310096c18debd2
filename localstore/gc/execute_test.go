package gc

import (
	"testing"
	"time"
)

// A transaction is as large as fits its time.
func TestNextSize(t *testing.T) {
	for _, tt := range []struct {
		rows int
		took time.Duration
		want int
	}{
		{256, time.Millisecond, 256},
		{256, 5 * time.Millisecond, 256},
		{256, 10 * time.Millisecond, 128},
		{256, 200 * time.Millisecond, minBatch},
		{128, time.Microsecond, 256},
		{32, 3 * time.Millisecond, 53},
		{32, time.Second, minBatch},
		{1, 0, minBatch},
	} {
		if got := nextSize(tt.rows, tt.took); got != tt.want {
			t.Errorf("after %d rows in %v: %d, want %d", tt.rows, tt.took, got, tt.want)
		}
	}
}
