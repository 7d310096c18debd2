package db

import "os"

// leastReserved is below what size a file that does not fit is not worth making smaller.
const leastReserved = 256 << 10

// reserve gives the file at path the given size in real disk blocks, or half of that, and so on, where space is short.
// Failure is of no account, as it is to upstream: the file only helps a later collection on a full disk.
func reserve(path string, size int64) {
	if size < 0 {
		return
	}
	if st, err := os.Stat(path); err == nil && st.Size() == size {
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	for ; ; size /= 2 {
		if err = resize(f, size); err == nil {
			return
		}
		if size/2 < leastReserved {
			break
		}
	}
	// Left behind it would look as if it had what it is for.
	os.Remove(path)
}

// resize frees what the file has before it takes anything: on a full disk there is nothing else to take.
func resize(f *os.File, size int64) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	return allocate(f, size)
}

// fill occupies blocks by writing them, where the file system has no other way.
func fill(f *os.File, size int64) error {
	block := make([]byte, 64<<10)
	for i := range block {
		block[i] = 'X'
	}
	for offset := int64(0); offset < size; offset += int64(len(block)) {
		if _, err := f.WriteAt(block[:min(int64(len(block)), size-offset)], offset); err != nil {
			return err
		}
	}
	return nil
}
