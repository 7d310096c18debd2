package fstree

import (
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nixhash"
)

// smallFile is the largest file, in bytes, whose contents are gathered before it is made, to see whether there is one like
// it. Of a larger one making it costs little beside writing it.
const smallFile = 64 << 10

// smallFiles are those of an archive that are linked. Looking for an equal one, making one that has none, and giving that
// its name among the links cost about the same in turn. So files are made in batches by a goroutine of its own, while
// the archive's reader looks for those of the next batch and links those of the one before: so each directory, the
// tree's and that of the links, is changed by one of the two alone, for whom the other would have to wait. An archive
// with few files is left without the goroutine.
type smallFiles struct {
	sum     *fileSum
	linking optimising // for its buffer
	filling *fileBatch // nil at first

	running    int             // batches that are being made
	todo, done chan *fileBatch // nil until the goroutine is started
	keys       []linkKey       // of all files that are not linked yet, in the order in which they came
}

// fileBatch are files that are made one after the other.
type fileBatch struct {
	files []batchFile
	text  []byte // of all files
	dirs  int    // how often a file was in another directory than the one before
	err   error
}

type batchFile struct {
	dir        *openDir
	name       string
	executable bool
	excluded   bool // from linking
	link       string
	hash       nixhash.Hash
	end        int // of its contents within text
}

// linkKey is the beginning of a link's name.
type linkKey [8]byte

// Limits of a batch: so many files are worth telling another goroutine, so much memory is held for each of the
// maxBatches, and so many directories at most stay open for their files.
const (
	batchFiles = 32
	batchBytes = 256 << 10
	batchDirs  = 8
	maxBatches = 3
)

func (b *fileBatch) full() bool {
	return len(b.files) >= batchFiles || len(b.text) >= batchBytes || b.dirs >= batchDirs
}

func (b *fileBatch) reset() {
	clear(b.files)
	b.files, b.text, b.dirs, b.err = b.files[:0], b.text[:0], 0, nil
}

// newBatch borrows a batch, for its buffers; give it back with [Dir.putBatch].
func (d *Dir) newBatch() *fileBatch {
	if b, ok := d.batches.Get().(*fileBatch); ok {
		return b
	}
	return new(fileBatch)
}

func (d *Dir) putBatch(b *fileBatch) {
	b.reset()
	d.batches.Put(b)
}

// makeFiles makes the files of a batch, up to the first error.
func (d *Dir) makeFiles(b *fileBatch) {
	start := 0
	for i := range b.files {
		f := &b.files[i]
		if err := d.makeFile(f, b.text[start:f.end]); err != nil {
			b.err = fmt.Errorf("writing file \"%s\": %w", d.join(f.dir.within(f.name)), err)
			return
		}
		start = f.end
	}
}

func (d *Dir) makeFile(f *batchFile, text []byte) error {
	fd, err := createFile(f.dir.fd, f.name, f.executable)
	if err != nil {
		return err
	}
	w := fileWriter{fd: fd}
	_, err = w.Write(text)
	if err == nil {
		err = d.finishFile(&w, f.executable)
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	return err
}

// addSmall gives what equals a file a further name, or has the file made.
func (re *restorer) addSmall(name string, executable bool, size uint64, contents io.Reader) error {
	_, name, err := re.parent(name)
	if err != nil {
		return err
	}
	s := &re.small
	if s.sum == nil {
		s.sum, s.filling = re.top.newSum(), re.top.newBatch()
	}
	hash, err := s.sum.gather(executable, size, contents)
	if err != nil {
		return re.wrap("writing file", name, err)
	}
	dir := re.open[len(re.open)-1]
	t := re.linking(dir, name)
	excluded, link := excludedFromLinking(t.where), hash.Nix32()
	key := linkKey([]byte(link))
	if !excluded {
		if slices.Contains(s.keys, key) {
			// Its equal, probably, which is not linked yet.
			if err := s.settle(re); err != nil {
				return err
			}
			t = re.linking(dir, name)
		}
		if t.take(dir.fd, name, link, executable, size) {
			return nil
		}
	}
	s.filling.add(batchFile{dir: dir, name: name, executable: executable, excluded: excluded, link: link, hash: hash}, s.sum.text)
	s.keys = append(s.keys, key)
	if !s.filling.full() {
		return nil
	}
	return s.dispatch(re)
}

func (b *fileBatch) add(f batchFile, text []byte) {
	b.text = append(b.text, text...)
	f.end = len(b.text)
	if last := len(b.files) - 1; last < 0 || b.files[last].dir != f.dir {
		b.dirs++
	}
	b.files = append(b.files, f)
	f.dir.waiting++
}

// dispatch hands the batch over, and links those that have been made meanwhile.
func (s *smallFiles) dispatch(re *restorer) error {
	if s.todo == nil {
		// Neither send ever waits.
		s.todo, s.done = make(chan *fileBatch, maxBatches), make(chan *fileBatch, maxBatches)
		go makeBatches(re.top, s.todo, s.done)
	}
	s.todo <- s.filling
	s.running++
	s.filling = nil
	for s.running == maxBatches-1 || len(s.done) > 0 {
		if err := s.collect(re); err != nil {
			return err
		}
	}
	s.filling = re.top.newBatch()
	return nil
}

func makeBatches(d *Dir, todo <-chan *fileBatch, done chan<- *fileBatch) {
	defer close(done)
	for b := range todo {
		d.makeFiles(b)
		done <- b
	}
}

// collect waits for the oldest batch that is being made, and links its files.
func (s *smallFiles) collect(re *restorer) error {
	b := <-s.done
	s.running--
	err := s.link(re, b)
	re.top.putBatch(b)
	return err
}

// link gives the files of a batch that is made their names among the links. What that waits for is ended.
func (s *smallFiles) link(re *restorer, b *fileBatch) error {
	if b.err != nil {
		return b.err
	}
	for i := range b.files {
		f := &b.files[i]
		if !f.excluded {
			if err := re.linking(f.dir, f.name).joinNew(f.dir.fd, f.name, f.link, f.hash); err != nil {
				return err
			}
		}
		if f.dir.waiting--; f.dir.waiting == 0 && f.dir.ended {
			if err := re.endWaiting(f.dir); err != nil {
				return err
			}
		}
	}
	s.keys = s.keys[:copy(s.keys, s.keys[len(b.files):])]
	return nil
}

func (re *restorer) endWaiting(dir *openDir) error {
	for i, d := range re.unmade {
		if d == dir {
			last := len(re.unmade) - 1
			re.unmade[i] = re.unmade[last]
			re.unmade = re.unmade[:last]
			break
		}
	}
	return re.endDirectory(dir)
}

// settle makes and links all that was added.
func (s *smallFiles) settle(re *restorer) error {
	if s.filling == nil {
		return nil
	}
	// The batch that comes last is made here, for the goroutine may have to do with those before it.
	re.top.makeFiles(s.filling)
	for s.running > 0 {
		if err := s.collect(re); err != nil {
			return err
		}
	}
	if err := s.link(re, s.filling); err != nil {
		return err
	}
	s.filling.reset()
	return nil
}

// end ends the goroutine, after what is left was made and linked, if all is well so far.
func (s *smallFiles) end(re *restorer, well bool) (err error) {
	if well {
		err = s.settle(re)
	}
	if s.todo != nil {
		close(s.todo)
		for range s.done {
			// What it was doing when something failed is removed with the rest.
		}
	}
	if s.sum != nil {
		re.top.putSum(s.sum)
	}
	if s.filling != nil {
		re.top.putBatch(s.filling)
	}
	return err
}

// gather hashes a file, and keeps its contents in text.
func (s *fileSum) gather(executable bool, size uint64, contents io.Reader) (nixhash.Hash, error) {
	if err := s.begin(nil, executable, size); err != nil {
		return nixhash.Hash{}, err
	}
	s.text = s.text[:0]
	if _, err := contents.(io.WriterTo).WriteTo((*gathering)(s)); err != nil {
		return nixhash.Hash{}, err
	}
	if _, err := s.nar.Write(s.text); err != nil {
		return nixhash.Hash{}, err
	}
	return s.finish()
}

// gathering is the text of a sum, as what is written to.
type gathering fileSum

func (g *gathering) Write(p []byte) (int, error) {
	g.text = append(g.text, p...)
	return len(p), nil
}

// take gives a link a name in a directory, if there is that link and it looks like what it is called. Whatever stands in
// the way is left to making the file and joining it.
func (t *optimising) take(parent int, name, link string, executable bool, size uint64) bool {
	if t.opts.Repair || t.opts.Sync {
		return false
	}
	if retry(func() error { return unix.Linkat(t.links.fd, link, parent, name, 0) }) != nil {
		return false
	}
	var st unix.Stat_t
	if fstatat(parent, name, &st) == nil && uint32(st.Mode) == unix.S_IFREG|fileMode(executable) && uint64(st.Size) == size && mtimeIsCanonical(&st) {
		t.linked(link, &st)
		return true
	}
	// If it cannot be removed, making the file says so.
	_ = unlink(parent, name, 0)
	return false
}
