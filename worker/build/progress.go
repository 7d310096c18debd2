package build

import "nixdaemon/protocol/activity"

// progress is what a request tells of its builds and substitutions as a whole: three activities that live as long as
// the request, and counts (libstore/build/worker.hh, updateProgress). Counts are sent when they have changed, once for
// all goals that could go on together.
type progress struct {
	realise, builds, copies activity.ID

	done, expected, running, failed                      uint64
	fetched, toFetch, fetching, fetchesFailed            uint64
	downloadDone, downloadExpected, narDone, narExpected uint64
	shownBuilds, shownCopies                             [4]uint64
	shownDownload, shownNar                              uint64
}

func (p *progress) begin(ids *activity.IDs, log activity.Sink) {
	p.realise, p.builds, p.copies = ids.Next(), ids.Next(), ids.Next()
	log.Start(p.realise, activity.Error, activity.Realise, "", nil, 0)
	log.Start(p.builds, activity.Error, activity.Builds, "", nil, 0)
	log.Start(p.copies, activity.Error, activity.CopyPaths, "", nil, 0)
}

func (p *progress) end(log activity.Sink) {
	log.Stop(p.copies)
	log.Stop(p.builds)
	log.Stop(p.realise)
}

func (p *progress) show(log activity.Sink) {
	showCounts(log, p.builds, &p.shownBuilds, [4]uint64{p.done, p.expected + p.done, p.running, p.failed})
	showCounts(log, p.copies, &p.shownCopies, [4]uint64{p.fetched, p.toFetch + p.fetched, p.fetching, p.fetchesFailed})
	p.showExpected(log, &p.shownDownload, activity.FileTransfer, p.downloadExpected+p.downloadDone)
	p.showExpected(log, &p.shownNar, activity.CopyPath, p.narExpected+p.narDone)
}

// counts are those for whoever looks.
func (p *progress) counts() Counts {
	return Counts{
		Builds:  Count{Done: p.done, Open: p.expected, Running: p.running, Failed: p.failed},
		Fetches: Count{Done: p.fetched, Open: p.toFetch, Running: p.fetching, Failed: p.fetchesFailed},
	}
}

func showCounts(log activity.Sink, id activity.ID, shown *[4]uint64, counts [4]uint64) {
	if *shown == counts {
		return
	}
	*shown = counts
	log.Result(id, activity.Progress, []activity.Field{
		activity.Number(counts[0]), activity.Number(counts[1]), activity.Number(counts[2]), activity.Number(counts[3]),
	})
}

func (p *progress) showExpected(log activity.Sink, shown *uint64, kind activity.Type, n uint64) {
	if *shown == n {
		return
	}
	*shown = n
	log.Result(p.realise, activity.SetExpected, []activity.Field{activity.Number(uint64(kind)), activity.Number(n)})
}
