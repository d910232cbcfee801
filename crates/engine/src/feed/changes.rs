//! A subscription to the changes of a database.

use crate::db::{Core, Subscriber, SubscriberStatus};
use crate::log::{
    IngestedTable, LogReader, Peek, RawRecord, RecordKind, RecordPosition, decode_commit_batch, decode_ingested,
};
use crate::types::{BatchEntry, Content, Decoded, Kind};
use crate::{Db, Error, Family, Result, SequenceNumber, WriteBatch};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How a subscription begins. Start from [`ChangesOptions::from`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangesOptions {
    /// Batches with larger numbers are given. 0: from the first write on.
    pub from: SequenceNumber,
    /// Give only what survives power loss. Default true. Without it, a subscriber may be given `Buffered` writes that a
    /// power loss takes back, and other writes then get their numbers: it must not resume after that.
    pub durable: bool,
    /// Families whose operations and ingested ranges are left out. A batch that has nothing else is not given, but
    /// [`Changes::position`] passes it. Default: none.
    pub left_out: BTreeSet<Family>,
}

impl ChangesOptions {
    /// From this number on.
    pub fn from(from: SequenceNumber) -> ChangesOptions {
        ChangesOptions { from, durable: true, left_out: BTreeSet::new() }
    }
}

/// One batch as it was written, large values included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number: newer is greater, and no other batch has it.
    pub sequence: SequenceNumber,
    /// Its operations in order: [`WriteBatch::ops`]. Values that have ended by now are in it too.
    pub batch: WriteBatch,
    /// Of an ingest ([`Db::ingest`]), whose keys are not in the log: where they are. Read these ranges from a snapshot
    /// of at least this number, and take what is there in place of what you have; the batch is empty. An ingest that
    /// failed after it had got its number is given, too: the ranges are then as they were.
    pub ingested: Vec<IngestedRange>,
}

/// A table's key range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestedRange {
    /// The family.
    pub family: Family,
    /// The first key.
    pub smallest_key: Bytes,
    /// The last key, inclusive.
    pub largest_key: Bytes,
}

/// The changes of a database from a number on: see [`Db::changes`]. It may outlive the database, and then gives
/// [`Error::Closed`].
pub struct Changes {
    core: Arc<Core>,
    subscriber: Arc<Subscriber>,
    reader: LogReader,
    position: SequenceNumber,
    durable: bool,
    left_out: BTreeSet<Family>,
}

/// What a look for the next change has found.
enum Next {
    Change(Change),
    /// Nothing that is visible.
    Nothing,
    /// Something that is visible, but that a power loss might take back.
    NotDurable,
}

impl Db {
    /// Subscribes to what is written after `from`, a sequence number: of the last batch that the subscriber has, or of
    /// a snapshot whose contents it has; 0 for everything. Whole batches are given in the order of their numbers, those
    /// in the log first, then those to come, once they are visible and durable ([`Db::changes_with`] can give them
    /// before they are durable).
    ///
    /// A subscriber resumes from [`Changes::position`], also after a restart, for as long as the log has what follows:
    /// [`crate::Options::feed_retention_bytes`]. It blocks no writer. `Derived` commits are not in the log, and not in
    /// the feed.
    ///
    /// Errors: [`Error::ChangesGone`] if the log does not go back so far; [`Error::InvalidArgument`] if `from` is
    /// larger than every number given out, so that it belongs to another database, or to writes that a power loss took
    /// back; [`Error::Closed`].
    pub fn changes(&self, from: SequenceNumber) -> Result<Changes> {
        self.changes_with(ChangesOptions::from(from))
    }

    /// As [`Db::changes`], with options.
    pub fn changes_with(&self, options: ChangesOptions) -> Result<Changes> {
        let core = self.core();
        core.shared().health.check_open()?;
        let (from, newest) = (options.from, core.write.memtables.visible());
        if from > newest {
            return Err(Error::InvalidArgument(format!(
                "changes are asked for after sequence number {from}, but the newest is {newest}: the number is of \
                 another database, or of writes that a power loss took back; read a snapshot and subscribe from its \
                 number"
            )));
        }
        let reader = LogReader::new(&core.write.log.segments, from).ok_or_else(|| core.changes_gone(from))?;
        let subscriber = core.shared().subscribers.enter(core.shared().env.clock.wall_ms());
        subscriber.note(from, reader.place());
        let ChangesOptions { durable, left_out, .. } = options;
        Ok(Changes { core: core.clone(), subscriber, reader, position: from, durable, left_out })
    }

    /// The subscriptions that are open, in the order they were opened.
    pub fn change_subscribers(&self) -> Vec<SubscriberStatus> {
        self.core().shared().subscribers.subscribers()
    }
}

impl Core {
    fn changes_gone(&self, after: SequenceNumber) -> Error {
        self.shared().subscribers.cut_off.fetch_add(1, Ordering::Relaxed);
        Error::ChangesGone { after, oldest_sequence: self.write.log.segments.deleted_through() + 1 }
    }

    /// What changes when there may be something new for a subscriber.
    fn feed_mark(&self) -> (SequenceNumber, u64, bool) {
        (
            self.write.memtables.visible(),
            self.write.memtables.visibility.durable(),
            self.shared().health.check_writable().is_ok(),
        )
    }
}

impl Changes {
    /// The next batch, if there is one now.
    ///
    /// Errors: [`Error::ChangesGone`] if the subscriber has fallen behind what the log keeps, or if a large value is
    /// gone already; [`Error::Corruption`] and [`Error::Io`] from the log and the value log; [`Error::Closed`]. After
    /// an error the position is what it was.
    #[allow(clippy::should_implement_trait, reason = "an error does not end it, as it would end an iterator")]
    pub fn next(&mut self) -> Result<Option<Change>> {
        match self.look()? {
            Next::Change(change) => Ok(Some(change)),
            Next::Nothing | Next::NotDurable => Ok(None),
        }
    }

    /// The next batch; waits for one, no longer than `timeout`. If there is one that is not durable, it syncs the log
    /// instead of waiting until another thread does.
    ///
    /// Errors: as [`Changes::next`]; [`Error::Stopped`] if there is nothing and nothing will be written any more.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<Change>> {
        let core = self.core.clone();
        let deadline = core.shared().env.clock.monotonic().checked_add(timeout);
        loop {
            let mark = core.feed_mark();
            match self.look()? {
                Next::Change(change) => return Ok(Some(change)),
                Next::NotDurable => {
                    core.write.sync_log()?;
                    continue;
                }
                Next::Nothing => {}
            }
            core.shared().health.check_writable()?;
            if !core.shared().env.tasks.threaded() {
                // A stepped world: nothing is written while this waits, except what was submitted.
                if core.shared().env.tasks.step() {
                    continue;
                }
                return Ok(None);
            }
            let left = deadline.map(|deadline| deadline.saturating_sub(core.shared().env.clock.monotonic()));
            if left == Some(Duration::ZERO) || core.shared().subscribers.sleep(left, || core.feed_mark() != mark) {
                return self.next();
            }
        }
    }

    /// The number of the last batch given, or where the subscription began: subscribe from here to continue.
    pub fn position(&self) -> SequenceNumber {
        self.position
    }

    /// The number of this subscription in statistics.
    pub fn id(&self) -> u64 {
        self.subscriber.status().id
    }

    fn look(&mut self) -> Result<Next> {
        loop {
            self.core.shared().health.check_open()?;
            // Before the look at the log: every batch up to this number is in the log by now.
            let visible = self.core.write.memtables.visible();
            let (position, record) = match self.reader.peek(&self.core.write.log.segments) {
                Ok(Peek::Record(position, record)) => (position, record),
                Ok(Peek::End) => return Ok(Next::Nothing),
                Err(error) => {
                    self.reader.forget();
                    // Another database may use the segment again once this one is closed.
                    self.core.shared().health.check_open()?;
                    return Err(error);
                }
                Ok(Peek::Gone) => {
                    // If it has read the segment to its end, nothing is missing.
                    let again = LogReader::new(&self.core.write.log.segments, self.position);
                    self.reader = again.ok_or_else(|| self.core.changes_gone(self.position))?;
                    continue;
                }
            };
            // Streams' records have no number, and a resumed subscriber finds some that it has.
            let numbered = matches!(record.kind, RecordKind::Commit | RecordKind::Ingest);
            if numbered && record.sequence > self.position {
                if record.sequence > visible {
                    return Ok(Next::Nothing);
                }
                if self.durable
                    && !self
                        .core
                        .write
                        .log
                        .segments
                        .is_durable(position, self.core.write.memtables.visibility.durable())
                {
                    return Ok(Next::NotDurable);
                }
                let change = change_of(&self.core, position, record, &self.left_out)?;
                let bytes = change.batch.as_bytes().len() as u64;
                self.position = change.sequence;
                self.reader.advance(position.bytes);
                self.subscriber.note(self.position, self.reader.place());
                if !self.left_out.is_empty() && change.batch.is_empty() && change.ingested.is_empty() {
                    continue;
                }
                self.core.shared().subscribers.note_batch(bytes);
                return Ok(Next::Change(change));
            }
            self.reader.advance(position.bytes);
            self.subscriber.note(self.position, self.reader.place());
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.core.shared().subscribers.leave(self.subscriber.id);
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("position", &self.position).finish_non_exhaustive()
    }
}

fn change_of(
    core: &Core,
    position: RecordPosition,
    record: RawRecord<'_>,
    left_out: &BTreeSet<Family>,
) -> Result<Change> {
    let malformed = |_| Error::Corruption {
        file: core.write.log.segments.path(position.segment),
        offset: position.offset,
        what: "a log record is whole but malformed".to_string(),
    };
    let sequence = record.sequence;
    if record.kind == RecordKind::Ingest {
        let range = |table: IngestedTable| {
            let IngestedTable { family, smallest_key, largest_key, .. } = table;
            IngestedRange { family, smallest_key, largest_key }
        };
        let tables = decode_ingested(sequence, record.payload).map_err(malformed)?;
        let ingested = tables.into_iter().map(range).filter(|range| !left_out.contains(&range.family)).collect();
        return Ok(Change { sequence, batch: WriteBatch::new(), ingested });
    }
    let batch = decode_commit_batch(record.payload).map_err(malformed)?;
    Ok(Change { sequence, batch: with_values(core, batch, sequence, left_out)?, ingested: Vec::new() })
}

/// The batch without the families to leave out, and with its large values in place of the pointers to them.
fn with_values(
    core: &Core,
    batch: WriteBatch,
    sequence: SequenceNumber,
    left_out: &BTreeSet<Family>,
) -> Result<WriteBatch> {
    let changes = |entry: BatchEntry<'_>| {
        let is_pointer = matches!(entry, BatchEntry::Version { kind, .. } if kind.is_pointer());
        is_pointer || left_out.contains(&entry.family())
    };
    if !batch.entries().any(changes) {
        return Ok(batch);
    }
    // The version pins the value files that it names; it is newer than the batch, which is visible.
    let (state, _) = core.write.memtables.read_point();
    let mut out = WriteBatch::new();
    for entry in batch.entries().filter(|entry| !left_out.contains(&entry.family())) {
        match entry {
            BatchEntry::DeleteRange { family, start, end } => out.delete_range(family, start..end),
            BatchEntry::Version { family, key, kind: Kind::Delete, .. } => out.delete(family, key),
            BatchEntry::Version { family, key, kind, stored } => {
                let decoded = Decoded::new(kind, stored).expect("a WriteBatch holds a whole encoding");
                let Content::Pointer(pointer) = decoded.content else {
                    out.put_stored(family, key, kind, stored);
                    continue;
                };
                let Some(value) = state.version.values().read_if_there(pointer)? else {
                    // Nothing says which other batches have lost values; those after this one are as good a start as
                    // any.
                    core.shared().subscribers.cut_off.fetch_add(1, Ordering::Relaxed);
                    return Err(Error::ChangesGone { after: sequence - 1, oldest_sequence: sequence + 1 });
                };
                match decoded.expires_at_ms {
                    Some(expires_at_ms) => out.put_expiring(family, key, &value, expires_at_ms),
                    None => out.put(family, key, &value),
                }
            }
        }
    }
    Ok(out)
}
