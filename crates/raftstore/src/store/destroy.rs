//! The end of a replica that a membership change has removed.
//!
//! From the moment at which it knows of the change, the replica says nothing more: no vote, no acknowledgement, no
//! answer but refusals. When nothing of it is in flight, one synced commit removes its log, its descriptor, its applied
//! position and the keys of its range, and leaves a *tombstone* in `meta`: the replica's identity, which is never used
//! again, and the conf_version of the change. Late messages for it find the tombstone.
//!
//! | crash between | on disk | what recovery does |
//! |---|---|---|
//! | what it learned, and the commit of the end | a replica as before | starts it; it asks again |
//! | the flush of a change that it applied itself, and the commit of the end | a descriptor without a peer here, and its log | destroys it |
//! | the commit of the end and anything later | the tombstone | nothing |
//!
//! Recovery recognises the second case by the descriptor; the replica's identity is then in the state blob of its log.
//! *Rejected:* a tombstone in the batch of the change's apply (it is not logged, and replicas' batches would differ).
//!
//! How a replica gets to know that it was removed, and when: `peer/members.rs`.

use super::Store;
use crate::effect::{Observation, PersistId, SnapshotTask};
use crate::meta::{self, Tombstone};
use crate::region::{Region, RegionId};
use crate::snapshot::FileId;
use kontiki_engine::{Range, StreamId, StreamOp};
use std::collections::BTreeMap;

/// Replicas whose end is being written.
#[derive(Default)]
pub(super) struct Destruction {
    begun: BTreeMap<RegionId, Begun>,
}

struct Begun {
    persist: PersistId,
    region: Region,
    /// Received snapshot files that nothing needs afterwards.
    files: Vec<FileId>,
}

impl Destruction {
    /// The regions whose ranges are not free yet.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.begun.values().map(|begun| &begun.region)
    }

    /// The files of replicas that are not destroyed yet.
    pub fn needed_files(&self) -> impl Iterator<Item = FileId> {
        self.begun.values().flat_map(|begun| begun.files.iter().copied())
    }
}

impl Store {
    /// A replica that was removed is hidden at once, and destroyed when nothing of it is in flight.
    pub(super) fn tend_removed(&mut self, id: RegionId) {
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.is_removed()) else { return };
        if peer.absorbed_by().is_some() {
            // Its data stay, and its range is about to be another region's.
            return;
        }
        self.readers.remove(id);
        if !peer.is_quiet() {
            return;
        }
        self.ticking.remove(&id);
        let mut peer = self.peers.remove(&id).expect("just seen");
        peer.release_memory(&mut self.out);
        let absorbed = peer.left_over();
        let tombstone = Tombstone { peer: peer.id(), conf_version: peer.conf_version(), absorbed };
        let files = peer.needed_files().collect();
        self.destroy(Region::clone(peer.region()), tombstone, files);
    }

    pub(super) fn destroy(&mut self, region: Region, tombstone: Tombstone, files: Vec<FileId>) {
        let out = &mut self.out;
        out.streams.push(StreamOp::Remove { stream: StreamId(region.id.0) });
        for family in self.families.of(region.space) {
            out.persist_batch.delete_range(*family, Range::region(&region.start_key, &region.end_key));
        }
        meta::put_tombstone(self.families.meta, &mut out.persist_batch, region.id, tombstone);
        self.creation.tombstones.insert(region.id, tombstone);
        let (id, persist) = (region.id, out.persist_id);
        let before = self.destruction.begun.insert(id, Begun { persist, region, files });
        assert!(before.is_none(), "a region has one replica here");
    }

    /// Everything through `persist` is durable.
    pub(super) fn destroy_persisted(&mut self, persist: PersistId) {
        let is_due = |(_, begun): &(&RegionId, &Begun)| begun.persist <= persist;
        let due: Vec<RegionId> = self.destruction.begun.iter().filter(is_due).map(|(region, _)| *region).collect();
        for region in due {
            let begun = self.destruction.begun.remove(&region).expect("just seen");
            tracing::info!(region = region.0, "a replica that was removed is destroyed");
            self.out.snapshots.extend(begun.files.into_iter().map(|file| SnapshotTask::Remove { file }));
            self.out.observations.push(Observation::RegionRemoved { region });
        }
    }
}
