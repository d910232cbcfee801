//! Merges: a region takes over the range of its neighbour, by a request. docs/internals/merge.md has the design.
//!
//! The request is proposed as a preparation at the leader of the source; everything else raftstore does by itself. The
//! caller gets its answer when the merge has ended here: committed, or rolled back because the target changed first.

use super::error::NodeError;
use super::inbox::Reply;
use super::{Driver, PLACEMENT_REGION, Pending};
use kontiki_placement::Now;
use kontiki_raftstore::command::{Action, Command};
use kontiki_raftstore::{Answer, Event, Region, RegionError, RegionId};
use std::collections::BTreeMap;

/// A merge that is prepared, or about to be.
pub(super) struct Wanted {
    pub source: RegionId,
    pub target: RegionId,
    pub reply: Reply<Region>,
}

impl Wanted {
    /// The merge was committed, or rolled back.
    fn end(self, driver: &Driver, is_committed: bool) {
        let target = driver.shared.readers.region(self.target).map(|(region, _)| Region::clone(&region));
        self.reply.send(match target {
            _ if !is_committed => Err(NodeError::Busy("the merge's target changed meanwhile; merge again")),
            Some(region) => Ok(region),
            None => Err(RegionError::RegionNotFound { region: self.target }.into()),
        });
    }
}

/// The callers whose merges are prepared, by the source.
#[derive(Default)]
pub(super) struct Merges {
    prepared: BTreeMap<RegionId, Wanted>,
}

impl Driver {
    /// Proposes to merge `source` into its neighbour `target`.
    pub(super) fn start_merge(&mut self, wanted: Wanted, now: Now) {
        let region = |id| self.shared.readers.region(id).map(|(region, _)| region);
        let command = match (region(wanted.source), region(wanted.target)) {
            _ if wanted.source == PLACEMENT_REGION || wanted.target == PLACEMENT_REGION => {
                let why = "the region of the placement group is not merged";
                Err(RegionError::Impossible { region: wanted.source, why })
            }
            (None, _) => Err(RegionError::RegionNotFound { region: wanted.source }),
            (_, None) => Err(RegionError::RegionNotFound { region: wanted.target }),
            (Some(source), Some(target)) => {
                // raftstore fills in what it knows of the replicas.
                let action = Action::PrepareMerge { target: Region::clone(&target), replicated_index: 0 };
                Ok(Command { epoch: source.epoch, action })
            }
        };
        match command {
            Ok(command) => {
                let region = wanted.source;
                let ticket = self.pending.add(Pending::Merge(wanted));
                self.store.handle(Event::Command { region, command, ticket }, now.monotonic);
            }
            Err(error) => wanted.reply.send(Err(error.into())),
        }
    }

    /// raftstore answered whether the merge is prepared.
    pub(super) fn merge_prepared(&mut self, wanted: Wanted, ended: Answer) {
        match ended {
            Answer::Ok { .. } => match self.shared.readers.region(wanted.source) {
                Some((source, _)) if source.merging().is_some() => {
                    self.pending.merges.prepared.insert(wanted.source, wanted);
                }
                here => wanted.end(self, here.is_none()),
            },
            Answer::Refused(error) => wanted.reply.send(Err(error.into())),
            Answer::Dropped => wanted.reply.send(Err(NodeError::Undetermined)),
        }
    }

    /// The range of `source` is that of `target` here.
    pub(super) fn region_merged(&mut self, source: RegionId, target: RegionId) {
        self.shared.counters.merges.increment();
        self.formation.regions_changed();
        self.heartbeats.region_changed(target);
        if let Some(wanted) = self.pending.merges.prepared.remove(&source) {
            wanted.end(self, true);
        }
    }

    /// The replica here ended without the merge: it missed it, or was removed.
    pub(super) fn merge_missed(&mut self, source: RegionId) {
        if let Some(wanted) = self.pending.merges.prepared.remove(&source) {
            wanted.reply.send(Err(NodeError::Undetermined));
        }
    }

    /// A region has another descriptor: a merge of which it was the source may be rolled back.
    pub(super) fn merge_may_have_ended(&mut self, region: &Region) {
        if region.merging().is_none()
            && let Some(wanted) = self.pending.merges.prepared.remove(&region.id)
        {
            wanted.end(self, false);
        }
    }
}
