package db

import "zombiezen.com/go/sqlite"

// PathRow is what the database knows of one valid path. All paths are full store paths.
type PathRow struct {
	// ID is the row's number. Register ignores it.
	ID int64
	// Path is the store path.
	Path string
	// Hash is the SHA-256 of the path's NAR as "sha256:" and base16.
	Hash string
	// RegistrationTime is in seconds since 1970. Register replaces 0 by the current time.
	RegistrationTime int64
	// Deriver is the derivation that made the path, empty if unknown.
	Deriver string
	// NarSize is the size of the NAR in bytes, 0 if unknown.
	NarSize uint64
	// Ultimate says that the path was built here.
	Ultimate bool
	// Sigs is the path's signatures, separated by spaces.
	Sigs string
	// CA is the content address, empty if the path is not content-addressed.
	CA string
	// References are the paths that this one refers to, possibly itself among them, in no particular order.
	References []string
	// Inserted is set by Register: the path was not valid before, so that the row is all there is to know.
	Inserted bool
}

// scanPath reads the columns of query_path, with which those of list_rows_beyond begin.
func scanPath(s *sqlite.Stmt, path string) PathRow {
	return PathRow{
		ID:               s.ColumnInt64(0),
		Path:             path,
		Hash:             s.ColumnText(1),
		RegistrationTime: s.ColumnInt64(2),
		Deriver:          s.ColumnText(3),
		NarSize:          uint64(s.ColumnInt64(4)),
		Ultimate:         s.ColumnInt64(5) == 1,
		Sigs:             s.ColumnText(6),
		CA:               s.ColumnText(7),
	}
}
