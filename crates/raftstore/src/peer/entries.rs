//! Applied entries that leave the memory, and come back for followers that lag.
//!
//! They are committed and durable, so no payload in memory is needed for safety: an evicted entry is read from the
//! stream when an append to a follower begins with it. The core does without that append until then, and heartbeats
//! continue. An answer that comes too late (the log begins above it by now, this replica does not lead any more, it is
//! another replica of the region) is dropped; a follower that still needs entries asks again with its next answer to a
//! heartbeat. That also repeats reads that failed, at that rate.
//!
//! Followers that are full get an append without entries, which says where their log continues ([`super::flow`]); the
//! core makes it from an append with entries, so one entry is read for them.

use super::Peer;
use crate::consensus::wire;
use crate::consensus::{Entry, entry_from_wire};
use crate::effect::{EntriesTask, ReadId};
use crate::outbox::Outbox;
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// A read is of at most so many appends: they are sent without another read between them.
const READ_APPENDS_MAX: usize = 4;

#[derive(Default)]
pub(super) struct EntryReads {
    /// Indices of evicted entries with which appends would begin.
    wanted: BTreeSet<u64>,
    /// Where the reads in flight begin.
    reading: BTreeMap<ReadId, u64>,
    /// Whether the region waits for its turn.
    is_queued: bool,
    failures: u64,
}

impl Peer {
    /// Evicts applied entries until so many bytes are released; with `only_replicated` only those that no live follower
    /// needs.
    pub fn evict(&mut self, bytes: usize, only_replicated: bool, out: &mut Outbox) {
        let shared = if self.leading.is_some() { self.replicated_through(out.now) } else { self.replicated };
        let through = if only_replicated { shared } else { u64::MAX };
        let applied = if self.config.planted().evict_handed_out { self.handed } else { self.applied.index };
        // The commit of a merge needs what it may have to send.
        let through = through.min(self.held_for_merge().unwrap_or(u64::MAX));
        self.group.evict(through.min(applied).min(self.group.durable_index()), bytes);
        self.account(out);
    }

    /// Notes which entries the core lacked.
    pub(super) fn want_entries(&mut self, out: &mut Outbox) {
        let lacked = self.group.take_entries_wanted();
        let reads = &mut self.entry_reads;
        reads.wanted.extend(lacked.into_iter().filter(|low| reads.reading.values().all(|reading| reading != low)));
        // A follower that continues elsewhere by now has asked for that.
        reads.wanted.retain(|low| self.group.followers_at(*low).next().is_some());
        self.queue_reads(out);
    }

    fn queue_reads(&mut self, out: &mut Outbox) {
        if !self.entry_reads.wanted.is_empty() && !self.entry_reads.is_queued {
            self.entry_reads.is_queued = true;
            out.readers.push_back(self.region.id);
        }
    }

    /// It is this region's turn: begins one read, if it still needs one.
    pub fn begin_read(&mut self, out: &mut Outbox) {
        self.entry_reads.is_queued = false;
        while let Some(low) = self.entry_reads.wanted.pop_first() {
            let mut waiting = self.group.followers_at(low).peekable();
            if waiting.peek().is_none() {
                continue; // They continue elsewhere by now.
            }
            let are_full = waiting.all(|follower| self.flow.full_followers.contains(&follower));
            let bytes_max = READ_APPENDS_MAX.saturating_mul(self.config.append_bytes_max);
            let bytes_max = if are_full { 0 } else { bytes_max };
            let Some((indices, bytes)) = self.group.evicted_from(low, bytes_max) else { continue };
            let id = out.next_read();
            self.entry_reads.reading.insert(id, low);
            out.memory.read_begins(bytes);
            out.entries.push(EntriesTask { id, region: self.region.id, indices, bytes });
            break;
        }
        self.queue_reads(out);
    }

    /// A read ended.
    pub fn entries_read(&mut self, id: ReadId, result: Result<Vec<Bytes>, String>, out: &mut Outbox) {
        let Some(low) = self.entry_reads.reading.remove(&id).filter(|_| !self.removed) else { return };
        let sent = result.and_then(|entries| {
            if entries.is_empty() && self.leads() && self.group.evicted_from(low, 0).is_some() {
                return Err("the stream lacks entries of the log".into());
            }
            let count = entries.len() as u64;
            let entries = decode(entries).map_err(str::to_owned)?;
            self.group.entries_fetched(low, entries)?;
            Ok(count)
        });
        match sent {
            Ok(count) => out.memory.entries_read += count,
            Err(error) => {
                out.memory.failed_reads += 1;
                self.entry_reads.failures += 1;
                if self.entry_reads.failures.is_power_of_two() {
                    let (region, failures) = (self.region.id.0, self.entry_reads.failures);
                    tracing::error!(region, low, failures, error, "entries for a follower cannot be read; it waits");
                }
            }
        }
    }
}

fn decode(entries: Vec<Bytes>) -> Result<Vec<Entry>, &'static str> {
    let entries = entries.into_iter().map(|bytes| wire::Entry::decode(bytes).map_err(|_| "it cannot be decoded"));
    entries.map(|entry| entry.and_then(entry_from_wire)).collect()
}
