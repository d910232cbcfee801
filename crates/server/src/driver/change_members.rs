//! The replicas of a region change, by a request. Requests name stores; the identity of a new replica follows from the
//! directory of its store, which the members of the cluster know. The rules are in raftstore (`peer/changes.rs` there)
//! and in docs/internals/membership.md.

use super::error::NodeError;
use super::inbox::{Reply, StoreChange};
use super::{Driver, PLACEMENT_REGION, Pending};
use kontiki_placement::Now;
use kontiki_raftstore::command::{Action, Command};
use kontiki_raftstore::{
    Answer, Event, MemberChange, Peer, PeerId, Region, RegionError, RegionId, RoleChange, StoreId, next_replica_id,
};

impl Driver {
    /// Proposes a change of a region's replicas.
    pub(super) fn start_change(&mut self, region: RegionId, change: &StoreChange, reply: Reply<Region>, now: Now) {
        let command = self.shared.readers.region(region).ok_or(RegionError::RegionNotFound { region }.into());
        let command = command.and_then(|(region, _)| {
            let action = Action::ChangeMembers(self.member_change(&region, change)?);
            Ok(Command { epoch: region.epoch, action })
        });
        match command {
            Ok(command) => {
                let ticket = self.pending.add(Pending::ChangeMembers { region, reply });
                self.store.handle(Event::Command { region, command, ticket }, now.monotonic);
            }
            Err(error) => reply.send(Err(error)),
        }
    }

    fn member_change(&self, region: &Region, change: &StoreChange) -> Result<MemberChange, NodeError> {
        if region.id == PLACEMENT_REGION {
            let why = "the replicas of the placement group do not move in this version";
            return Err(RegionError::Impossible { region: region.id, why }.into());
        }
        let replica = |store: &StoreId| -> Result<PeerId, NodeError> {
            let why = "the store has no replica of it";
            let peer = region.peer_on(*store).ok_or(RegionError::Impossible { region: region.id, why })?;
            Ok(peer.id)
        };
        Ok(match change {
            StoreChange::AddLearner(store) => {
                let directory = self.formation.membership.directory_of(*store);
                let directory = directory.ok_or(NodeError::Busy("that store's directory is not known yet"))?;
                MemberChange::AddLearner(Peer { id: next_replica_id(directory, region), store: *store })
            }
            StoreChange::Remove(store) => MemberChange::Remove(replica(store)?),
            StoreChange::Roles { promote, demote } => {
                let promote = promote.iter().map(|store| Ok(RoleChange::Promote(replica(store)?)));
                let demote = demote.iter().map(|store| Ok(RoleChange::Demote(replica(store)?)));
                let changes = promote.chain(demote).collect::<Result<Vec<_>, NodeError>>()?;
                match changes[..] {
                    [RoleChange::Promote(id)] => MemberChange::Promote(id),
                    [RoleChange::Demote(id)] => MemberChange::Demote(id),
                    _ => MemberChange::Jointly(changes),
                }
            }
        })
    }

    /// raftstore answered.
    pub(super) fn change_ended(&self, region: RegionId, reply: Reply<Region>, ended: Answer) {
        reply.send(match ended {
            Answer::Ok { .. } => match self.shared.readers.region(region) {
                Some((region, _)) => Ok(Region::clone(&region)),
                None => Err(RegionError::RegionNotFound { region }.into()),
            },
            Answer::Refused(error) => Err(error.into()),
            Answer::Dropped => Err(NodeError::Undetermined),
        });
    }
}
