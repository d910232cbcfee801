//! The sending side of snapshots: build one when a follower needs it, send it, remove it.
//!
//! One built file serves every follower until the log is truncated past it or nobody has asked for a while. A file is
//! removed when it is neither offered nor being sent.

use super::Peer;
use crate::consensus::wire::SnapshotInfo;
use crate::effect::{BuildId, SnapshotTask};
use crate::outbox::Outbox;
use crate::region::{self, StoreId};
use crate::snapshot::{FileId, SnapshotFile, SnapshotId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(super) struct Serving {
    building: Option<BuildId>,
    /// On offer to followers.
    current: Option<SnapshotFile>,
    sends: BTreeMap<FileId, BTreeSet<StoreId>>,
    idle_ticks: u64,
}

impl Serving {
    pub fn needs(&self, file: &FileId) -> bool {
        self.current.as_ref().is_some_and(|current| current.name() == *file) || self.sends.contains_key(file)
    }

    /// The lowest index from which a follower that is being sent a snapshot will need the log.
    pub fn lowest_in_use(&self) -> Option<u64> {
        self.sends.keys().map(|file| file.snapshot.index).min()
    }
}

impl Peer {
    /// Orders a snapshot if the core missed one.
    pub(super) fn want_snapshot(&mut self, out: &mut Outbox) {
        let wanted = self.group.take_snapshot_wanted();
        if wanted && self.leading.is_some() && self.serving.building.is_none() && !self.waits_for_install() {
            let build = out.next_build();
            self.serving.building = Some(build);
            let left_out = self.config.planted().snapshot_without_locks.then_some(crate::families::TXN_LOCK);
            out.snapshots.push(SnapshotTask::Build { region: self.region.id, build, left_out });
        }
    }

    /// A build ended.
    pub fn snapshot_built(&mut self, build: BuildId, result: Result<SnapshotFile, String>, out: &mut Outbox) {
        let expected = self.serving.building == Some(build);
        if expected {
            self.serving.building = None;
        }
        let file = match result {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(region = self.region.id.0, error, "a snapshot could not be built; it is tried again");
                return;
            }
        };
        let useful = expected && self.leading.is_some() && file.id.index >= self.group.truncated().index;
        if !useful {
            return self.discard_built(file.name(), out);
        }
        assert!(
            file.id.region == self.region.id && file.id.index <= self.group.committed(),
            "a view holds what is applied"
        );
        assert!(!self.waits_for_install(), "no snapshot is built of a half-installed state");
        if self.serving.current.as_ref().is_some_and(|current| current.name() != file.name()) {
            self.retire(out);
        }
        self.group.offer_snapshot(Some(&file.to_info()), &file.region);
        self.serving.current = Some(file);
        self.serving.idle_ticks = 0;
    }

    fn discard_built(&self, file: FileId, out: &mut Outbox) {
        if !self.needs_file(&file) {
            out.snapshots.push(SnapshotTask::Remove { file });
        }
    }

    /// The core addressed a snapshot to a follower.
    pub(super) fn send_snapshot(&mut self, to: region::Peer, info: &SnapshotInfo, message: Bytes, out: &mut Outbox) {
        let offered = |file: &&SnapshotFile| (file.id.index, file.id.term) == (info.index, info.term);
        match self.serving.current.as_ref().filter(offered) {
            Some(file) => {
                self.serving.sends.entry(file.name()).or_default().insert(to.store);
                let file = file.clone();
                out.snapshots.push(SnapshotTask::Send { region: self.region.id, to: to.store, message, file });
            }
            // Replaced or withdrawn between the core's decision and now: it asks again.
            None => self.group.report_snapshot(to.id, false),
        }
    }

    /// A send ended.
    pub fn snapshot_sent(&mut self, to: StoreId, snapshot: SnapshotId, ok: bool, out: &mut Outbox) {
        let ended = |(file, stores): (&FileId, &BTreeSet<StoreId>)| {
            (file.snapshot == snapshot && stores.contains(&to)).then_some(*file)
        };
        if let Some(file) = self.serving.sends.iter().find_map(ended) {
            let stores = self.serving.sends.get_mut(&file).expect("just seen");
            stores.remove(&to);
            if stores.is_empty() {
                self.serving.sends.remove(&file);
                self.discard_built(file, out);
            }
        }
        if let Some(peer) = self.region.peer_on(to).filter(|_| self.leads()) {
            self.group.report_snapshot(peer.id, ok);
        }
    }

    /// Withdraws the offer.
    fn retire(&mut self, out: &mut Outbox) {
        if let Some(file) = self.serving.current.take() {
            self.group.offer_snapshot(None, &self.region);
            self.discard_built(file.name(), out);
        }
    }

    pub(super) fn stop_serving(&mut self, out: &mut Outbox) {
        self.retire(out);
    }

    pub(super) fn tick_serving(&mut self, out: &mut Outbox) {
        if self.serving.current.is_none() || !self.serving.sends.is_empty() {
            self.serving.idle_ticks = 0;
            return;
        }
        self.serving.idle_ticks += 1;
        if self.serving.idle_ticks >= self.config.snapshot_idle_ticks {
            self.retire(out);
        }
    }
}
