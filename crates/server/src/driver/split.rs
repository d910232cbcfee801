//! Splits: a region becomes several, by a request.
//!
//! ```text
//! keys ──> placement: an identity for each new region ──> a command in the region's log ──> applied ──> the regions
//! ```
//! Identities that are not used in the end are lost, which does no harm. The replicas of a new region have identities
//! that follow from the directories of the members ([`replica_id`]), so a store that lost its directory does not become
//! the replica that it had.

use super::calls::Origin;
use super::error::NodeError;
use super::inbox::Reply;
use super::{Driver, Pending};
use bytes::Bytes;
use kontiki_placement::{AllocateIds, Now, Outcome, Response};
use kontiki_raftstore::command::{Action, Command, SplitChild};
use kontiki_raftstore::{Answer, Epoch, Event, Region, RegionError, RegionId, replica_id};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long placement may take to give out identities.
const IDS_TIMEOUT: Duration = Duration::from_secs(5);

/// Who asked for a split.
pub(super) enum Asked {
    /// A caller.
    By(Reply<Vec<Region>>),
    /// The node itself, because the region is too large.
    BySize,
    /// The node itself, because too much of the region is served.
    ByLoad,
}

/// A split that waits for identities.
struct Wanted {
    region: RegionId,
    epoch: Epoch,
    /// Ascending.
    keys: Vec<Bytes>,
    asked: Asked,
}

/// The splits that wait for identities.
#[derive(Default)]
pub(super) struct Splits {
    wanted: BTreeMap<u64, Wanted>,
    last: u64,
}

#[cfg(test)]
impl Splits {
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }
}

/// A split in the log.
pub(super) struct Proposed {
    asked: Asked,
    /// The regions that it leaves.
    regions: Vec<RegionId>,
}

impl Driver {
    /// Begins a split of a region at `keys`, ascending: asks placement for identities.
    pub(super) fn start_split(&mut self, region: RegionId, epoch: Epoch, keys: Vec<Bytes>, asked: Asked, now: Now) {
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        self.splits.last += 1;
        let id = self.splits.last;
        self.splits.wanted.insert(id, Wanted { region, epoch, keys, asked });
        let request = kontiki_placement::Command::AllocateIds(AllocateIds { count }).into();
        self.start_call(Origin::Split(id), request, now.monotonic + IDS_TIMEOUT, now);
    }

    /// Placement answered, or did not in time.
    pub(super) fn split_answered(&mut self, id: u64, response: Option<Response>, now: Now) {
        let Some(Wanted { region, epoch, keys, asked }) = self.splits.wanted.remove(&id) else { return };
        let first = match response.and_then(|response| response.outcome) {
            Some(Outcome::Ids(granted)) => granted.first,
            _ => return self.answer_split(asked, &[region], Err(NodeError::Timeout), now),
        };
        if self.is_disk_full() && self.shared.leads(region) {
            return self.answer_split(asked, &[region], Err(NodeError::DiskFull), now);
        }
        let children = match self.children(region, keys, first) {
            Ok(children) => children,
            Err(error) => return self.answer_split(asked, &[region], Err(error), now),
        };
        let regions = [region].into_iter().chain(children.iter().map(|child| child.id)).collect();
        let ticket = self.pending.add(Pending::Split(Proposed { asked, regions }));
        let command = Command { epoch, action: Action::Split(children) };
        self.store.handle(Event::Command { region, command, ticket }, now.monotonic);
    }

    /// What a split of a region at `keys` makes, numbered from `first` on.
    fn children(&self, region: RegionId, keys: Vec<Bytes>, first: u64) -> Result<Vec<SplitChild>, NodeError> {
        let (region, _) = self.shared.readers.region(region).ok_or(RegionError::RegionNotFound { region })?;
        let directories = region.peers.iter().map(|peer| self.formation.membership.directory_of(peer.store));
        let directories: Option<Vec<u64>> = directories.collect();
        let directories = directories.ok_or(NodeError::Busy("another member's directory is not known yet"))?;
        let child = |(start_key, id): (Bytes, RegionId)| SplitChild {
            start_key,
            id,
            peers: directories.iter().map(|directory| replica_id(*directory, id)).collect(),
        };
        Ok(keys.into_iter().zip((first..).map(RegionId)).map(child).collect())
    }

    /// raftstore answered.
    pub(super) fn split_ended(&mut self, proposed: Proposed, ended: Answer, now: Now) {
        let Proposed { asked, regions } = proposed;
        let result = match ended {
            Answer::Ok { .. } => {
                self.shared.counters.splits.increment();
                let here = regions.iter().filter_map(|id| self.shared.readers.region(*id));
                Ok(here.map(|(region, _)| Region::clone(&region)).collect())
            }
            Answer::Refused(error) => Err(error.into()),
            Answer::Dropped => Err(NodeError::Undetermined),
        };
        self.answer_split(asked, &regions, result, now);
    }

    /// Answers the caller. `regions`: the region, and those that a split was to make. A failure of a split that the
    /// node wanted itself is only noted: the next survey of the region's size, or a later window of its load, asks
    /// again.
    fn answer_split(&mut self, asked: Asked, regions: &[RegionId], result: Result<Vec<Region>, NodeError>, now: Now) {
        let Some(&region) = regions.first() else { return };
        let error = match (asked, result) {
            (Asked::By(reply), result) => return reply.send(result),
            (Asked::BySize, Ok(_)) => return,
            (Asked::ByLoad, Ok(_)) => {
                self.shared.counters.splits_by_load.increment();
                return self.region_loads.split_ended(region, regions, now.monotonic);
            }
            (Asked::BySize, Err(error)) => error,
            (Asked::ByLoad, Err(error)) => {
                self.region_loads.split_ended(region, &[], now.monotonic);
                error
            }
        };
        tracing::info!(region = region.0, %error, "a region that is too large, or has too much load, was not split");
    }
}
