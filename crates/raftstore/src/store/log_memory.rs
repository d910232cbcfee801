//! What keeps the logs of all regions within their bounds of memory and disk: eviction, reads of evicted entries, and
//! in the end the release of what is retained for followers.

use super::Store;
use crate::consensus::Group;
use crate::effect::{EntriesTask, ReadId};
use crate::memory::Memory;
use crate::region::RegionId;
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Reads in flight, and the bytes that each may bring.
pub(super) type EntryReads = BTreeMap<ReadId, usize>;

impl Store {
    /// If the logs take too much memory: evicts applied entries, of the logs first that have most of them, and of those
    /// first what no live follower needs.
    pub(super) fn evict_entries(&mut self) {
        if !self.out.memory.must_evict() {
            return;
        }
        let peers = self.peers.values_mut().filter(|peer| !peer.is_removed());
        let mut peers: Vec<_> = peers.map(|peer| (peer.group().evictable_bytes(), peer)).collect();
        peers.retain(|(bytes, _)| *bytes > 0);
        peers.sort_by_key(|(bytes, _)| Reverse(*bytes));
        for only_replicated in [true, false] {
            for (_, peer) in &mut peers {
                let bytes = self.out.memory.eviction_bytes();
                if bytes == 0 {
                    return;
                }
                peer.evict(bytes, only_replicated, &mut self.out);
            }
        }
    }

    /// Begins reads of evicted entries, region by region, within the bound of what is read at the same time.
    pub(super) fn begin_reads(&mut self) {
        while self.out.memory.may_read()
            && let Some(region) = self.out.readers.pop_front()
        {
            if let Some(peer) = self.peers.get_mut(&region).filter(|peer| !peer.is_removed()) {
                peer.begin_read(&mut self.out);
            }
        }
        for EntriesTask { id, bytes, .. } in &self.out.entries {
            self.entry_reads.insert(*id, *bytes);
        }
    }

    /// A read ended.
    pub(super) fn entries_read(&mut self, region: RegionId, id: ReadId, result: Result<Vec<Bytes>, String>) {
        let bytes = self.entry_reads.remove(&id);
        self.out.memory.read_ended(bytes.expect("each task ends once"));
        self.with_peer(region, |peer, out| peer.entries_read(id, result, out));
    }

    /// If eviction does not suffice, or the logs take too much of the disk: the largest logs release what they retain
    /// for followers, and if that is not enough, applied entries have to be flushed.
    pub(super) fn relieve_memory(&mut self) {
        self.evict_entries();
        let (memory_max, stored_max) = (self.config.memory_bytes_max, self.config.stored_bytes_max);
        self.release_retained(Memory::is_tight, Group::memory_bytes, memory_max / 4);
        self.release_retained(Memory::is_disk_tight, Group::log_bytes, stored_max / 4);
    }

    /// A flush is requested if `applied_bytes_min` of what is left are applied.
    fn release_retained(
        &mut self,
        is_tight: impl Fn(&Memory) -> bool,
        bytes: impl Fn(&Group) -> usize,
        applied_bytes_min: usize,
    ) {
        if !is_tight(&self.out.memory) {
            return;
        }
        let mut peers: Vec<_> = self.peers.iter_mut().collect();
        peers.sort_by_key(|(_, peer)| Reverse(bytes(peer.group())));
        let mut applied_bytes = 0;
        for (region, peer) in peers {
            if is_tight(&self.out.memory) {
                self.dirty.insert(*region);
                peer.maybe_truncate(self.out.now, true, &mut self.out);
                peer.account(&mut self.out);
            }
            applied_bytes += bytes(peer.group()) - peer.group().unapplied_log_bytes();
        }
        self.out.flush |= is_tight(&self.out.memory) && applied_bytes >= applied_bytes_min;
    }
}

#[cfg(test)]
#[path = "log_memory_test.rs"]
mod tests;
