//! Splits: a region becomes several, by a request or because it has grown.
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

/// A split that waits for identities.
struct Wanted {
    region: RegionId,
    epoch: Epoch,
    /// Ascending.
    keys: Vec<Bytes>,
    /// `None`: no caller waits for it.
    reply: Option<Reply<Vec<Region>>>,
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
    reply: Option<Reply<Vec<Region>>>,
    /// The regions that it leaves.
    regions: Vec<RegionId>,
}

impl Driver {
    /// Begins a split of a region at `keys`, ascending: asks placement for identities.
    pub(super) fn start_split(
        &mut self,
        region: RegionId,
        epoch: Epoch,
        keys: Vec<Bytes>,
        reply: Option<Reply<Vec<Region>>>,
        now: Now,
    ) {
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        self.splits.last += 1;
        let id = self.splits.last;
        self.splits.wanted.insert(id, Wanted { region, epoch, keys, reply });
        let request = kontiki_placement::Command::AllocateIds(AllocateIds { count }).into();
        self.start_call(Origin::Split(id), request, now.monotonic + IDS_TIMEOUT, now);
    }

    /// Placement answered, or did not in time.
    pub(super) fn split_answered(&mut self, id: u64, response: Option<Response>, now: Now) {
        let Some(Wanted { region, epoch, keys, reply }) = self.splits.wanted.remove(&id) else { return };
        let first = match response.and_then(|response| response.outcome) {
            Some(Outcome::Ids(granted)) => granted.first,
            _ => return refuse(reply, NodeError::Timeout),
        };
        if self.is_disk_full() && self.shared.leads(region) {
            return refuse(reply, NodeError::DiskFull);
        }
        let action = match self.split_action(region, keys, first) {
            Ok(action) => action,
            Err(error) => return refuse(reply, error),
        };
        let regions = match &action {
            Action::Split(children) => [region].into_iter().chain(children.iter().map(|child| child.id)).collect(),
            _ => Vec::new(),
        };
        let ticket = self.pending.add(Pending::Split(Proposed { reply, regions }));
        let command = Command { epoch, action };
        self.store.handle(Event::Command { region, command, ticket }, now.monotonic);
    }

    /// The command that splits a region at `keys`; its new regions are numbered from `first` on.
    fn split_action(&self, region: RegionId, keys: Vec<Bytes>, first: u64) -> Result<Action, NodeError> {
        let (region, _) = self.shared.readers.region(region).ok_or(RegionError::RegionNotFound { region })?;
        let directories = region.peers.iter().map(|peer| self.formation.membership.directory_of(peer.store));
        let directories: Option<Vec<u64>> = directories.collect();
        let directories = directories.ok_or(NodeError::Busy("another member's directory is not known yet"))?;
        let child = |(start_key, id): (Bytes, RegionId)| SplitChild {
            start_key,
            id,
            peers: directories.iter().map(|directory| replica_id(*directory, id)).collect(),
        };
        Ok(Action::Split(keys.into_iter().zip((first..).map(RegionId)).map(child).collect()))
    }

    /// raftstore answered.
    pub(super) fn split_ended(&mut self, proposed: Proposed, answer: Answer) {
        let Proposed { reply, regions } = proposed;
        let error = match answer {
            Answer::Ok { .. } => {
                self.shared.counters.splits.increment();
                let here = regions.into_iter().filter_map(|id| self.shared.readers.region(id));
                let here = here.map(|(region, _)| Region::clone(&region)).collect();
                if let Some(reply) = reply {
                    reply.send(Ok(here));
                }
                return;
            }
            Answer::Refused(error) => error.into(),
            Answer::Dropped => NodeError::Undetermined,
        };
        refuse(reply, error);
    }
}

fn refuse(reply: Option<Reply<Vec<Region>>>, error: NodeError) {
    match reply {
        Some(reply) => reply.send(Err(error)),
        None => tracing::warn!(%error, "a region could not be split; it is tried again"),
    }
}
