package meter

import (
	"nixdaemon/daemon/status/metrics"
	"nixdaemon/localstore"
	"nixdaemon/worker/build"
	"nixdaemon/worker/substitute"
	"nixdaemon/worker/substitute/narinfocache"
)

// Server is what is asked of the listener side.
type Server interface {
	// Connections is how many clients are connected, Busy how many of them wait
	// for an answer.
	Connections() int
	Busy() int
	// Traffic is how many bytes came from clients and went to them.
	Traffic() (received, sent uint64)
}

// Serve has the listener side asked when somebody reads.
func (m *Meter) Serve(s Server) {
	r := &m.Registry
	r.Func(metrics.Desc{Name: "nix_daemon_connections", Help: "Clients that are connected: busy ones wait for an answer.", Kind: metrics.KindGauge, Labels: []string{"state"}},
		func(emit func(float64, ...string)) {
			all, busy := s.Connections(), s.Busy()
			emit(float64(busy), "busy")
			emit(float64(max(all-busy, 0)), "idle")
		})
	r.Count("nix_daemon_received_bytes_total", "Bytes from clients.", func() float64 { n, _ := s.Traffic(); return float64(n) })
	r.Count("nix_daemon_sent_bytes_total", "Bytes to clients.", func() float64 { _, n := s.Traffic(); return float64(n) })
}

// Sources are asked when somebody reads. Each may be nil.
type Sources struct {
	Builds   func() build.Status
	Fetching func() []substitute.FetchStatus
	Infos    func() narinfocache.Stats
	Database func() localstore.DatabaseStats
	// Collecting tells whether a collection runs.
	Collecting func() bool
	// Disk tells how many bytes are free for the store, and how many there are.
	Disk func() (free, size uint64, err error)
}

// Ask has sources asked when somebody reads.
func (m *Meter) Ask(s Sources) {
	r := &m.Registry
	if s.Builds != nil {
		askBuilds(r, s.Builds)
	}
	if s.Fetching != nil {
		r.Gauge("nix_daemon_substitutions_running", "Paths that are being fetched.", func() float64 { return float64(len(s.Fetching())) })
	}
	if s.Infos != nil {
		r.Func(metrics.Desc{Name: "nix_daemon_narinfo_cache_lookups_total", Kind: metrics.KindCounter, Labels: []string{"result"},
			Help: "Questions to the cache of narinfos: answered with one, with the knowledge that there is none, or not at all."},
			func(emit func(float64, ...string)) {
				i := s.Infos()
				emit(float64(i.Absent), "absent")
				emit(float64(i.Hits), "hit")
				emit(float64(i.Misses), "miss")
			})
	}
	if s.Database != nil {
		askDatabase(r, s.Database)
	}
	if s.Collecting != nil {
		r.Gauge("nix_daemon_gc_running", "1 while a collection runs in this process.", func() float64 {
			if s.Collecting() {
				return 1
			}
			return 0
		})
	}
	if s.Disk != nil {
		askDisk(r, s.Disk)
	}
}

func askBuilds(r *metrics.Registry, status func() build.Status) {
	r.Func(metrics.Desc{Name: "nix_daemon_builds", Help: "Builds that run, are queued for a slot, or wait for something else.", Kind: metrics.KindGauge, Labels: []string{"state"}},
		func(emit func(float64, ...string)) {
			count := map[string]int{}
			for _, b := range status().Builds {
				count[b.State]++
			}
			for _, state := range []string{"queued", "running", "waiting"} {
				emit(float64(count[state]), state)
			}
		})
	r.Gauge("nix_daemon_build_slots", "How many builds may run at once.", func() float64 { return float64(status().Slots) })
	r.Gauge("nix_daemon_build_slots_used", "How many slots are taken.", func() float64 { return float64(status().Running) })
}

func askDatabase(r *metrics.Registry, stats func() localstore.DatabaseStats) {
	r.Count("nix_daemon_database_commits_total", "Transactions that changed something.", func() float64 { return float64(stats().Commits) })
	r.Count("nix_daemon_database_changes_total", "Changes in these transactions; divided by them, the size of a group.", func() float64 { return float64(stats().Changes) })
	r.Count("nix_daemon_database_busy_waits_total", "Waits because another process had locked the database.", func() float64 { return float64(stats().BusyWaits) })
	r.Count("nix_daemon_database_busy_seconds_total", "Time of these waits.", func() float64 { return stats().BusyTime.Seconds() })
	r.Gauge("nix_daemon_database_size_bytes", "Size of the database.", func() float64 { return float64(stats().Size) })
	r.Gauge("nix_daemon_database_log_bytes", "Size of the database's write-ahead log.", func() float64 { return float64(stats().LogSize) })
}

func askDisk(r *metrics.Registry, disk func() (free, size uint64, err error)) {
	r.Func(metrics.Desc{Name: "nix_daemon_store_free_bytes", Help: "Bytes that are free on the file system of the store.", Kind: metrics.KindGauge}, func(emit func(float64, ...string)) {
		if free, _, err := disk(); err == nil {
			emit(float64(free))
		}
	})
	r.Func(metrics.Desc{Name: "nix_daemon_store_size_bytes", Help: "Size of the file system of the store.", Kind: metrics.KindGauge}, func(emit func(float64, ...string)) {
		if _, size, err := disk(); err == nil {
			emit(float64(size))
		}
	})
}
