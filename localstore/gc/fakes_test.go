package gc

import (
	"context"
	"errors"

	"nixdaemon/localstore"
	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
)

var _ Store = (*localstore.Store)(nil)

// onMessage is a sink that calls a function.
type onMessage struct{ f func(text string) }

func (m *onMessage) Message(_ activity.Level, text string) { m.f(text) }

func (*onMessage) Start(activity.ID, activity.Level, activity.Type, string, []activity.Field, activity.ID) {
}
func (*onMessage) Stop(activity.ID)                                          {}
func (*onMessage) Result(activity.ID, activity.ResultType, []activity.Field) {}

// stubborn is a store in which the files of path 4 cannot be deleted.
type stubborn struct{ *localstore.Store }

func (s *stubborn) DeleteTree(ctx context.Context, realPath string) (uint64, error) {
	if realPath == s.RealPath(testPath(4)) {
		return 0, errors.New("it sticks")
	}
	return s.Store.DeleteTree(ctx, realPath)
}

// meddler is a store in which something happens before paths are made invalid.
type meddler struct {
	*localstore.Store
	before func(paths []storepath.Path)
	delete func(realPath string)
	valid  func([]storepath.Path) []storepath.Path // changes the first answer about validity
}

func (s *meddler) ValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	valid, err := s.Store.ValidPaths(ctx, paths)
	if change := s.valid; change != nil {
		s.valid = nil
		valid = change(valid)
	}
	return valid, err
}

func (s *meddler) DropRows(ctx context.Context, paths []storepath.Path, rows db.Rows) (int, error) {
	if s.before != nil {
		s.before(paths)
	}
	return s.Store.DropRows(ctx, paths, rows)
}

func (s *meddler) DeleteTree(ctx context.Context, realPath string) (uint64, error) {
	if s.delete != nil {
		s.delete(realPath)
	}
	return s.Store.DeleteTree(ctx, realPath)
}
