package builtin

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"nixdaemon/worker/builtin/builtinjob"
)

// maxJob bounds the file: a certificate bundle and an environment fit many times.
const maxJob = 64 << 20

func (b *builder) transfer() builtinjob.Transfer {
	if b.job.Transfer == nil {
		return builtinjob.DefaultTransfer()
	}
	return *b.job.Transfer
}

// readJob reads the job in a build directory and removes its file.
func readJob(dir string) (*builtinjob.Job, error) {
	name := filepath.Join(dir, builtinjob.File)
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read job of builtin builder: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxJob+1))
	if err != nil {
		return nil, fmt.Errorf("read job of builtin builder: %w", err)
	}
	if len(text) > maxJob {
		return nil, fmt.Errorf("read job of builtin builder: larger than %d bytes", maxJob)
	}
	job := new(builtinjob.Job)
	if err := json.Unmarshal(text, job); err != nil {
		return nil, fmt.Errorf("read job of builtin builder: %w", err)
	}
	// What the build directory holds on may be kept and read by others; nothing is lost if the file cannot go.
	_ = os.Remove(name)
	return job, nil
}
