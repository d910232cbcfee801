//! The one list of what is shown. docs/guide/statistics.md explains how to read each.

use super::metric::{Metric, MetricKind, Sample, Subsystem, Unit, Value};
use super::{Stats, named_families};
use Unit::{Bytes, None as No, Ratio, Seconds};

impl Stats {
    /// Every number, described: what Prometheus and JSON show.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::with_capacity(128);
        self.describe_commits(&mut Subsystem::new(&mut metrics, "commit"));
        self.describe_stalls(&mut Subsystem::new(&mut metrics, "stall"));
        self.describe_log(&mut Subsystem::new(&mut metrics, "log"));
        self.describe_feed(&mut Subsystem::new(&mut metrics, "feed"));
        self.describe_memtables(&mut Subsystem::new(&mut metrics, "memtable"));
        self.describe_ingest(&mut Subsystem::new(&mut metrics, "ingest"));
        self.describe_compaction(&mut Subsystem::new(&mut metrics, "compaction"));
        self.describe_levels(&mut Subsystem::new(&mut metrics, "level"));
        self.describe_reads(&mut Subsystem::new(&mut metrics, "read"));
        self.describe_filters(&mut Subsystem::new(&mut metrics, "filter"));
        self.describe_caches(&mut metrics);
        self.describe_values(&mut Subsystem::new(&mut metrics, "value_log"));
        self.describe_transactions(&mut Subsystem::new(&mut metrics, "transaction"));
        self.describe_hot_keys(&mut Subsystem::new(&mut metrics, "hot_key"));
        self.describe_health(&mut Subsystem::new(&mut metrics, "health"));
        metrics
    }

    fn describe_commits(&self, subsystem: &mut Subsystem<'_>) {
        let commits = &self.commits;
        subsystem.counter("sync", No, "Commits that were to survive power loss", commits.sync);
        subsystem.counter("buffered", No, "Commits that were to survive a killed process", commits.buffered);
        subsystem.counter("derived", No, "Commits that are logged elsewhere", commits.derived);
        subsystem.gauge("waiting", No, "Submitted commits that wait for their turn", commits.waiting);
        subsystem.gauge("visible_sequence", No, "The newest sequence number that readers see", self.visible_sequence);
        subsystem.histogram("latency", "Commits from call to answer, sampled", &self.latency.write);
        subsystem.histogram(
            "wait",
            "Commits from their place in the log to visible, sampled",
            &self.latency.commit_wait,
        );
    }

    fn describe_stalls(&self, subsystem: &mut Subsystem<'_>) {
        subsystem.counter("waits", No, "Times that a writer waited for flush or compaction", self.stalls.waits);
        subsystem.gauge("waiting", No, "Callers that wait for flush or compaction now", self.stalls.waiting);
        let delays = &self.stalls.delays;
        subsystem.counter("delays", No, "Writes that were slowed, short of a stop", delays.delayed);
        let times = [
            (
                "delayed_by_memtables",
                "Time that writes were slowed because memtables waited for flush",
                delays.memtables_us,
            ),
            ("delayed_by_level0", "Time that writes were slowed because level 0 was deep", delays.level0_us),
            ("delayed_by_debt", "Time that writes were slowed because of compaction debt", delays.compaction_debt_us),
            (
                "delayed_by_garbage",
                "Time that writes were slowed because of garbage in values",
                delays.value_garbage_us,
            ),
        ];
        for (name, help, us) in times {
            subsystem.counter(name, Seconds, help, seconds(us));
        }
        let help = "Where the worst debt is between its soft bound (0) and its hard one (100)";
        subsystem.gauge("pressure_percent", No, help, delays.pressure_percent);
        subsystem.gauge(
            "write_rate",
            Bytes,
            "What writers may bring a second, 0 for no limit",
            delays.bytes_per_second,
        );
        let help = "What background work gets through a second, by the latest estimate";
        subsystem.gauge("drain_rate", Bytes, help, delays.drain_bytes_per_second);
    }

    fn describe_log(&self, subsystem: &mut Subsystem<'_>) {
        let log = &self.log;
        subsystem.gauge("segments", No, "Segments", log.segments);
        subsystem.gauge("segments_free", No, "Files that wait to be segments again", log.segments_free);
        subsystem.counter("segments_deleted", No, "Segments that were deleted or recycled", log.segments_deleted);
        subsystem.counter(
            "segments_recycled",
            No,
            "Segments made of files that were segments before",
            log.segments_recycled,
        );
        subsystem.gauge("used", Bytes, "Bytes in use: what a restart would read", log.bytes);
        let help = "Bytes retained, by holder: a segment may have several";
        let by = |who: &str, bytes: u64| Sample { labels: vec![("by", who.to_string())], value: bytes.into() };
        let held = vec![
            by("memtables", log.held_by_memtables_bytes),
            by("streams", log.held_by_streams_bytes),
            by("feed", log.held_for_feed_bytes),
        ];
        subsystem.labelled(MetricKind::Gauge, "held", Bytes, help, held);
        let help = "How long the oldest segment has been full";
        subsystem.gauge("oldest_held_age", Seconds, help, log.oldest_held_ms as f64 / 1e3);
        subsystem.counter("holder_warnings", No, "Warnings that a holder keeps too much", log.holder_warnings);
        subsystem.counter("appended", Bytes, "Bytes appended", log.appended_bytes);
        subsystem.counter("rewritten", Bytes, "Bytes moved to the tail to free segments", log.rewritten_bytes);
        subsystem.gauge("replayed", Bytes, "Bytes of records that open replayed", log.replayed_bytes);
        subsystem.counter("syncs", No, "Syncs for commits", log.syncs);
        subsystem.gauge("streams", No, "Streams", log.streams);
        subsystem.histogram("sync", "Syncs for commits, with the sync of values before", &self.latency.log_sync);
    }

    fn describe_feed(&self, subsystem: &mut Subsystem<'_>) {
        let feed = &self.feed;
        subsystem.gauge("subscribers", No, "Open subscriptions to changes", feed.subscribers);
        subsystem.gauge("lag", No, "Sequence numbers that the slowest subscriber is behind", feed.lag_sequences);
        subsystem.gauge("lag", Bytes, "Bytes of the log that it has yet to read", feed.lag_bytes);
        subsystem.gauge("oldest_sequence", No, "Every logged batch from this one on can be read", feed.oldest_sequence);
        subsystem.counter("batches", No, "Batches given to subscribers", feed.batches);
        subsystem.counter("given", Bytes, "Bytes of these batches, values included", feed.batch_bytes);
        subsystem.counter("cut_off", No, "Times that a subscriber needed batches that were deleted", feed.cut_off);
    }

    fn describe_memtables(&self, subsystem: &mut Subsystem<'_>) {
        let memtables = &self.memtables;
        subsystem.gauge("count", No, "Memtables, the active one included", memtables.count);
        subsystem.gauge("used", Bytes, "Bytes of memtables", memtables.bytes);
        subsystem.counter("flushes", No, "Memtables flushed", memtables.flushes);
        subsystem.counter("flushed", Bytes, "Bytes of memtables flushed", memtables.flushed_bytes);
        subsystem.histogram("flush", "Flushes", &self.latency.flush);
    }

    fn describe_ingest(&self, subsystem: &mut Subsystem<'_>) {
        subsystem.counter("done", No, "Ingests of tables that were built outside", self.ingest.ingests);
        subsystem.counter("tables", No, "Tables that they took in", self.ingest.tables);
        subsystem.counter("taken_in", Bytes, "Bytes of these", self.ingest.bytes);
    }

    fn describe_compaction(&self, subsystem: &mut Subsystem<'_>) {
        let totals = &self.compaction;
        subsystem.counter("done", No, "Merges, moves and drops of tables", totals.count);
        subsystem.gauge("running", No, "Compactions that run", totals.running);
        subsystem.counter("read", Bytes, "Bytes of tables read", totals.read_bytes);
        subsystem.counter("written", Bytes, "Bytes of tables written", totals.written_bytes);
        subsystem.gauge("debt", Bytes, "Bytes to compact until all levels are within targets", totals.debt_bytes);
        let help = "Bytes written to tables for each byte flushed, since open";
        subsystem.gauge("write_amplification", Ratio, help, totals.write_amplification);
        let help = "Time that background work waited for the rate limiter";
        subsystem.counter("limiter_waited", Seconds, help, seconds(totals.limiter_waited_us));
        subsystem.counter("limiter_passed", Bytes, "Bytes that the rate limiter let pass", totals.limiter_bytes);
        let help = "The rate limiter's bound a second, 0 for none";
        subsystem.gauge("limiter_rate", Bytes, help, totals.limiter_bytes_per_second);
        let help = "Compactions of ranges in which scans passed over much that is dead";
        subsystem.counter("dead_requests", No, help, totals.dead_requests);
        let help = "Such compactions that were refused because too many waited";
        subsystem.counter("dead_requests_refused", No, help, totals.dead_requests_refused);
        subsystem.histogram("duration", "Units of compaction, as jobs take them", &self.latency.compaction);
    }

    fn describe_levels(&self, subsystem: &mut Subsystem<'_>) {
        let families = named_families::named(&self.families);
        let levels = || {
            families.iter().flat_map(|family| {
                let label = move |level: usize| vec![("family", family.name.clone()), ("level", level.to_string())];
                family.levels.iter().enumerate().map(move |(level, stats)| (label(level), stats))
            })
        };
        let gauge = |value: &dyn Fn(&super::LevelStats) -> Option<Value>| {
            levels().filter_map(|(labels, stats)| Some(Sample { labels, value: value(stats)? })).collect()
        };
        let kind = MetricKind::Gauge;
        subsystem.labelled(kind, "tables", No, "Tables", gauge(&|level| Some(level.tables.into())));
        subsystem.labelled(kind, "table", Bytes, "Bytes of tables", gauge(&|level| Some(level.bytes.into())));
        subsystem.labelled(kind, "versions", No, "Versions in tables", gauge(&|level| Some(level.entries.into())));
        subsystem.labelled(
            kind,
            "tombstones",
            No,
            "Tombstones in tables",
            gauge(&|level| Some(level.tombstones.into())),
        );
        let target = |level: &super::LevelStats| level.target_bytes.map(Value::from);
        subsystem.labelled(kind, "target", Bytes, "Bytes that the level is to hold", gauge(&target));
        let help = "Urgency of a compaction: 1 is due";
        subsystem.labelled(kind, "score", No, help, gauge(&|level| Some(level.score.into())));
        let ranges = families.iter().map(|family| Sample {
            labels: vec![("family", family.name.clone())],
            value: family.range_tombstones.into(),
        });
        subsystem.labelled(
            kind,
            "range_tombstones",
            No,
            "Range tombstones in addition to the tables",
            ranges.collect(),
        );
        let kind = MetricKind::Counter;
        let work = |value: &dyn Fn(&crate::compaction::LevelWork) -> Value| {
            let labelled = self.compaction.levels.iter().enumerate();
            labelled.map(|(level, work)| Sample { labels: level_label(level), value: value(work) }).collect()
        };
        let help = "Bytes of tables that flush and compaction wrote to the level";
        subsystem.labelled(kind, "written", Bytes, help, work(&|level| level.written_bytes.into()));
        let help = "Bytes of tables that compactions into the level read";
        subsystem.labelled(kind, "compaction_read", Bytes, help, work(&|level| level.read_bytes.into()));
        let help = "Versions that compactions into the level dropped";
        subsystem.labelled(kind, "versions_dropped", No, help, work(&|level| level.versions_dropped.into()));
        let help = "Time of all threads spent on flush or compaction into the level";
        subsystem.labelled(kind, "busy", Seconds, help, work(&|level| seconds(level.busy_us).into()));
    }

    fn describe_reads(&self, subsystem: &mut Subsystem<'_>) {
        let reads = &self.reads;
        subsystem.counter("gets", No, "Gets, estimated from those that were sampled", reads.gets);
        subsystem.counter("gets_found", No, "Gets that found a value, estimated", reads.gets_found);
        subsystem.counter("gets_in_memtables", No, "Gets that memory answered, estimated", reads.gets_in_memtables);
        subsystem.counter("scans", No, "Scans begun, estimated", reads.scans);
        let level = |value: &dyn Fn(&super::LevelReads) -> u64| {
            let labelled = reads.levels.iter().enumerate();
            labelled.map(|(level, of)| Sample { labels: level_label(level), value: value(of).into() }).collect()
        };
        let kind = MetricKind::Counter;
        let help = "Tables that gets searched, estimated";
        subsystem.labelled(kind, "level_tables_read", No, help, level(&|level| level.tables_read));
        let help = "Tables in which gets found their key, estimated";
        subsystem.labelled(kind, "level_found", No, help, level(&|level| level.found));
        subsystem.gauge("open", No, "Snapshots and iterators", reads.open);
        subsystem.gauge("pinned_states", No, "Past sets of tables that they hold", reads.pinned_states);
        let help = "How long the oldest of these has been out of date";
        subsystem.gauge("pinned_age", Seconds, help, reads.oldest_pinned_age_ms as f64 / 1e3);
        subsystem.gauge(
            "pinned_memtable",
            Bytes,
            "Bytes of memtables that only these hold",
            reads.pinned_memtable_bytes,
        );
        let help = "Dead versions that scans passed over";
        subsystem.counter("dead_versions_passed", No, help, reads.dead_versions_passed);
        let help = "Times that a scan skipped a range that is known to be dead";
        subsystem.counter("dead_ranges_skipped", No, help, reads.dead_ranges_skipped);
        subsystem.gauge("dead_ranges", No, "Ranges that are known to be dead", reads.dead_ranges);
        subsystem.counter("dead_ranges_recorded", No, "Times that a scan recorded one", reads.dead_ranges_recorded);
        let help = "Times that it could not, for a write came between";
        subsystem.counter("dead_ranges_refused", No, help, reads.dead_ranges_refused);
        subsystem.counter("dead_ranges_cut", No, "Times that a write into one cut it", reads.dead_ranges_cut);
        subsystem.histogram("get", "Gets, sampled", &self.latency.get);
        subsystem.histogram("seek", "First seeks of scans, sampled", &self.latency.seek);
        subsystem.histogram("multi_get", "Multi-gets, sampled", &self.latency.multi_get);
    }

    fn describe_filters(&self, subsystem: &mut Subsystem<'_>) {
        let filters = self.reads.filters();
        subsystem.counter("queries", No, "Filters of tables queried by gets, estimated", filters.queries);
        subsystem.counter("useful", No, "Searches that filters saved, estimated", filters.useful);
        subsystem.counter(
            "false_positives",
            No,
            "Searches that filters failed to save, estimated",
            filters.false_positives,
        );
    }

    fn describe_caches(&self, metrics: &mut Vec<Metric>) {
        for (subsystem, cache) in [("block_cache", &self.block_cache), ("value_cache", &self.value_cache)] {
            let mut subsystem = Subsystem::new(metrics, subsystem);
            subsystem.gauge("capacity", Bytes, "The most bytes that it may hold", cache.capacity_bytes);
            subsystem.gauge("used", Bytes, "Bytes in it", cache.bytes);
            subsystem.counter("hits", No, "Lookups that found their entry", cache.hits);
            subsystem.counter("misses", No, "Lookups that went to the file", cache.misses);
            subsystem.counter("evictions", No, "Entries that had to go for others", cache.evictions);
        }
        let (mut subsystem, tables) = (Subsystem::new(metrics, "table_cache"), &self.table_cache);
        subsystem.gauge("capacity", Bytes, "The most bytes of filters and indexes", tables.capacity_bytes);
        subsystem.gauge("used", Bytes, "Bytes of filters and indexes, pinned while the table is open", tables.bytes);
        subsystem.gauge("tables", No, "Open tables", tables.tables);
        subsystem.counter("opens", No, "Tables opened", tables.opens);
        let help = "Times that a scan passed by a table without its prefix";
        subsystem.counter("skipped_by_scans", No, help, tables.skipped_by_scans);
    }

    fn describe_values(&self, subsystem: &mut Subsystem<'_>) {
        let values = &self.values;
        subsystem.gauge("files", No, "Value files", values.files);
        subsystem.gauge("used", Bytes, "Bytes of value files", values.file_bytes);
        subsystem.gauge("open", Bytes, "Bytes in segments that are not sealed", values.open_bytes);
        subsystem.gauge("referred", Bytes, "Bytes that tables refer to", values.referred_bytes);
        subsystem.gauge("garbage", Bytes, "Bytes known to be garbage", values.garbage_bytes);
        subsystem.gauge("debt", Bytes, "Garbage beyond its bound: how far relocation is behind", values.debt_bytes);
        subsystem.gauge(
            "relocated_segments",
            No,
            "Segments whose values are in another file",
            values.relocated_segments,
        );
        subsystem.gauge("pending_deletes", No, "Removed files that wait for a reader", values.pending_deletes);
        subsystem.gauge("damaged_files", No, "Files that cannot be relocated: see kontiki check", values.damaged_files);
        subsystem.counter("appended", Bytes, "Bytes that commits wrote", values.appended_bytes);
        subsystem.counter("collections", No, "Collections of garbage", values.collections);
        subsystem.counter("relocated", Bytes, "Bytes that relocations wrote", values.relocated_bytes);
        subsystem.counter("freed", Bytes, "Bytes that collections freed", values.freed_bytes);
        subsystem.histogram("sync", "Syncs of values for commits", &self.latency.value_sync);
    }

    fn describe_transactions(&self, subsystem: &mut Subsystem<'_>) {
        let transactions = &self.transactions;
        subsystem.counter("started", No, "Transactions begun", transactions.started);
        subsystem.counter("committed", No, "Transactions committed", transactions.committed);
        subsystem.counter("rolled_back", No, "Transactions that ended without effect", transactions.rolled_back);
        subsystem.counter(
            "conflicts",
            No,
            "Commits and locks refused because of a newer write",
            transactions.conflicts,
        );
        subsystem.counter("retries", No, "Times that transact tried again", transactions.retries);
        subsystem.gauge("open", No, "Open transactions", transactions.active);
        let oldest = transactions.oldest_start.unwrap_or(self.visible_sequence);
        subsystem.gauge("oldest_start", No, "The read watermark: what is newer must be kept", oldest);
        subsystem.gauge("oldest_age", Seconds, "Age of the oldest", transactions.oldest_age_ms as f64 / 1e3);
        subsystem.gauge("locks", No, "Locks held", transactions.locks);
        subsystem.gauge("waiting", No, "Transactions that wait for a lock", transactions.waiting);
        subsystem.counter("lock_waits", No, "Waits for locks", transactions.lock_waits);
        subsystem.counter("lock_waited", Seconds, "Time spent in them", seconds(transactions.lock_wait_us));
        subsystem.counter("lock_timeouts", No, "Waits that reached their limit", transactions.lock_timeouts);
        subsystem.counter("deadlocks", No, "Locks refused because waiting would close a cycle", transactions.deadlocks);
    }

    fn describe_hot_keys(&self, subsystem: &mut Subsystem<'_>) {
        let hot_keys = &self.hot_keys;
        let samples = |keys: &[super::HotKey]| {
            let sample = |key: &super::HotKey| {
                let cut = if key.truncated { ".." } else { "" };
                let labels =
                    vec![("family", self.family_name(key.family)), ("key", format!("{}{cut}", key.key.escape_ascii()))];
                Sample { labels, value: key.per_second.into() }
            };
            keys.iter().map(sample).collect()
        };
        let help = "Reads a second of the keys that are read most, estimated";
        subsystem.labelled(MetricKind::Gauge, "reads_per_second", No, help, samples(&hot_keys.reads));
        let help = "Writes a second of the keys that are written most, estimated";
        subsystem.labelled(MetricKind::Gauge, "writes_per_second", No, help, samples(&hot_keys.writes));
        subsystem.counter("throttled", No, "Commits refused because a key was written too often", hot_keys.throttled);
        subsystem.counter("promoted", No, "Reads of hot keys that improved a place in a cache", hot_keys.promoted);
    }

    fn family_name(&self, number: u32) -> String {
        self.families
            .iter()
            .find(|family| family.family == number)
            .map_or_else(String::new, |family| family.name.clone())
    }

    fn describe_health(&self, subsystem: &mut Subsystem<'_>) {
        let health = &self.health;
        let reason = |reason: &Option<String>| {
            let labels = reason.iter().map(|reason| ("reason", reason.clone())).collect();
            vec![Sample { labels, value: u64::from(reason.is_some()).into() }]
        };
        let help = "1 while writes are refused until the database is opened again";
        subsystem.labelled(MetricKind::Gauge, "stopped", No, help, reason(&health.stopped));
        let help = "1 if a thread that worked for the database has panicked, which stops writes";
        subsystem.labelled(MetricKind::Gauge, "panicked", No, help, reason(&health.panicked));
        let help = "1 while writers are stopped at a bound, with what they wait for";
        subsystem.labelled(MetricKind::Gauge, "stalled", No, help, reason(&health.stalled));
        let help = "1 while a failure of flush or compaction is waited out";
        subsystem.labelled(MetricKind::Gauge, "background_error", No, help, reason(&health.background_error));
        subsystem.counter("failed_flushes", No, "Flushes that failed and are tried again", health.failed_flushes);
        subsystem.counter("failed_compactions", No, "Compactions that failed likewise", health.failed_compactions);
        let help = "Times that there was no descriptor to open a file with";
        subsystem.counter("descriptors_refused", No, help, health.descriptors_refused);
        let help = "Checkpoints and backups that gave up waiting for stalled writers";
        subsystem.counter("copies_refused", No, help, health.copies_refused);
    }
}

fn level_label(level: usize) -> Vec<(&'static str, String)> {
    vec![("level", level.to_string())]
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
