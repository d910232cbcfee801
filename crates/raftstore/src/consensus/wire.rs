//! The messages between stores and the records in log streams: our own protobuf messages, derived in code.
//!
//! The raft crate's parser never sees bytes from outside: bytes are decoded here, checked, and only then turned into
//! the crate's types. Field numbers are part of the format; unknown fields are skipped, absent ones are zero.

use crate::region::{
    ABSORBED_MAX, Absorbed, Epoch, Merges, Merging, Peer, PeerId, PeerRole, Region, RegionId, Space, StoreId,
};
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;

/// One log entry. On the wire inside [`RaftMessage`], and as the bytes of a stream's entry.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    /// 0 normal, 1 and 2 membership changes of the raft crate.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(uint64, tag = "2")]
    pub term: u64,
    #[prost(uint64, tag = "3")]
    pub index: u64,
    /// The proposal's batch; empty for a leader's first entry.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
    /// The beginning of the command (`crate::command`).
    #[prost(bytes = "bytes", tag = "5")]
    pub context: Bytes,
}

/// A raft message, between two peers of one region.
#[derive(Clone, PartialEq, Message)]
pub struct RaftMessage {
    /// The raft crate's numbering of message types.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(uint64, tag = "2")]
    pub term: u64,
    #[prost(uint64, tag = "3")]
    pub log_term: u64,
    #[prost(uint64, tag = "4")]
    pub index: u64,
    #[prost(message, repeated, tag = "5")]
    pub entries: Vec<Entry>,
    #[prost(uint64, tag = "6")]
    pub commit: u64,
    #[prost(uint64, tag = "7")]
    pub commit_term: u64,
    #[prost(message, optional, tag = "8")]
    pub snapshot: Option<SnapshotInfo>,
    #[prost(uint64, tag = "9")]
    pub request_snapshot: u64,
    #[prost(bool, tag = "10")]
    pub reject: bool,
    #[prost(uint64, tag = "11")]
    pub reject_hint: u64,
    /// Heartbeats: send time in nanoseconds of the leader's clock, number through which its transfers are void (8 bytes
    /// big-endian each), then the raft crate's context. Their answers: length in nanoseconds of the promise they make
    /// (8 bytes big-endian), then the heartbeat's context. Votes: the raft crate's context.
    #[prost(bytes = "bytes", tag = "12")]
    pub context: Bytes,
    #[prost(int64, tag = "13")]
    pub priority: i64,
    /// The number of a transfer of leadership, in the order to campaign and in the vote requests that follow from it.
    #[prost(uint64, tag = "14")]
    pub transfer: u64,
}

/// The description of the file in a snapshot message.
#[derive(Clone, PartialEq, Message)]
pub struct SnapshotInfo {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(uint64, tag = "2")]
    pub term: u64,
    #[prost(message, optional, tag = "3")]
    pub region: Option<RegionRecord>,
    #[prost(uint64, tag = "4")]
    pub bytes: u64,
    #[prost(uint32, tag = "5")]
    pub checksum: u32,
    /// In a state blob only: the number in the file's name.
    #[prost(uint64, tag = "6")]
    pub file_number: u64,
}

/// The envelope: everything one store sends another is one of these.
#[derive(Clone, PartialEq, Message)]
pub struct StoreMessage {
    #[prost(uint64, tag = "1")]
    pub region: u64,
    #[prost(uint64, tag = "2")]
    pub from_store: u64,
    #[prost(uint64, tag = "3")]
    pub to_store: u64,
    #[prost(uint64, tag = "4")]
    pub from_peer: u64,
    #[prost(uint64, tag = "5")]
    pub to_peer: u64,
    #[prost(uint64, tag = "6")]
    pub conf_version: u64,
    #[prost(uint64, tag = "7")]
    pub version: u64,
    #[prost(message, optional, tag = "8")]
    pub raft: Option<RaftMessage>,
    /// From a leader: the index through which every live replica's log is known to be the same. Followers may truncate
    /// through it without making a replica need a snapshot.
    #[prost(uint64, tag = "9")]
    pub replicated: u64,
    /// The sender's store takes no leadership now: its log cannot be written, or its process is about to end.
    #[prost(bool, tag = "10")]
    pub unable_to_lead: bool,
    /// From a follower: it has no capacity for entries now. Its heartbeat answers report when it has again.
    #[prost(bool, tag = "11")]
    pub full: bool,
    /// From a leader that does not know yet whether the receiver has a log: a store without this replica does not ask
    /// for a snapshot while it has another replica with a part of this range, which a split is about to end. And beside
    /// `not_a_member`.
    #[prost(message, optional, tag = "12")]
    pub descriptor: Option<RegionRecord>,
    /// Without a raft message: the region is to hibernate.
    #[prost(message, optional, tag = "13")]
    pub hibernate: Option<Hibernate>,
    /// Of no region: the sender's process runs, which has this number.
    #[prost(uint64, tag = "14")]
    pub alive: u64,
    /// The priority of the sender's store as leader.
    #[prost(sint32, tag = "15")]
    pub leader_priority: i32,
    /// Without a raft message. With `descriptor`: the receiver is not a member of the region, which is now that.
    /// Without it: the sender does not lead the region, and may not even have a replica.
    #[prost(bool, tag = "16")]
    pub not_a_member: bool,
    /// From a follower: its data have to be installed first, so it cannot lead although its log is complete.
    #[prost(bool, tag = "17")]
    pub without_data: bool,
    /// A message of a replica that is not a member, without its content, from a member to its leader.
    #[prost(bool, tag = "18")]
    pub passed_on: bool,
    /// Without a raft message, from a follower to its leader: its checksum of the region's data.
    #[prost(message, optional, tag = "19")]
    pub checksum: Option<ChecksumResult>,
    /// The sender's store executes the commands that compare replicas. Read by releases without keys that expire, whose
    /// commands it executes, too.
    #[prost(bool, tag = "20")]
    pub can_compare: bool,
    /// The sender's store executes those that leave out keys that expire before a time.
    #[prost(bool, tag = "40")]
    pub can_compare_expiring: bool,
    /// Without a raft message: a follower's read, or the leader's answer.
    #[prost(message, optional, tag = "21")]
    pub replica_read: Option<ReplicaRead>,
    /// The sender's store knows that replicas have roles.
    #[prost(bool, tag = "22")]
    pub knows_roles: bool,
    /// The sender's store executes merges.
    #[prost(bool, tag = "23")]
    pub knows_merges: bool,
    /// Without a raft message: the region exists no more, another one took its range over.
    #[prost(message, optional, tag = "24")]
    pub absorbed_by: Option<AbsorberRecord>,
    /// Without a raft message, to the leader of a source: the merge that was prepared at this index will not be
    /// committed.
    #[prost(uint64, tag = "25")]
    pub merge_failed: u64,
    /// Beside `alive`: microseconds that a write of the sender's log takes; 0: it does not know yet.
    #[prost(uint32, tag = "26")]
    pub log_write_us: u32,
    /// Beside `alive`: that is much longer than at the other stores.
    #[prost(bool, tag = "27")]
    pub log_is_slow: bool,
    /// Of no region: about the safe timestamps of some.
    #[prost(message, optional, boxed, tag = "30")]
    pub safe_ts: Option<Box<SafeTsMessage>>,
    /// The sender's store takes part in safe timestamps.
    #[prost(bool, tag = "31")]
    pub knows_safe_ts: bool,
    /// The sender's store executes the command that sets a region's GC safe point.
    #[prost(bool, tag = "41")]
    pub knows_gc: bool,
}

/// All that one store has to say to another about safe timestamps, at a time (`store/safe_ts.rs`).
#[derive(Clone, PartialEq, Message)]
pub struct SafeTsMessage {
    /// The timestamp of the round that `asked` and `confirmed` belong to.
    #[prost(uint64, tag = "1")]
    pub ts: u64,
    /// Regions that the receiver leads and that are read at the sender.
    #[prost(uint64, repeated, tag = "2")]
    pub wanted: Vec<u64>,
    /// Regions that the sender leads: the receiver says which of them it follows.
    #[prost(message, repeated, tag = "3")]
    pub asked: Vec<SafeTsRegion>,
    /// The answer: these.
    #[prost(message, repeated, tag = "4")]
    pub confirmed: Vec<SafeTsRegion>,
    /// Safe timestamps of regions.
    #[prost(message, repeated, tag = "5")]
    pub claims: Vec<SafeTsRegion>,
}

/// One region of a [`SafeTsMessage`].
#[derive(Clone, Copy, PartialEq, Message)]
pub struct SafeTsRegion {
    #[prost(uint64, tag = "1")]
    pub region: u64,
    /// The sender's replica.
    #[prost(uint64, tag = "2")]
    pub peer: u64,
    /// Of the sender's descriptor.
    #[prost(uint64, tag = "3")]
    pub conf_version: u64,
    /// In `asked`: the term in which the sender leads.
    #[prost(uint64, tag = "4")]
    pub term: u64,
    /// In `claims`, from here on: the version of the region for which it holds.
    #[prost(uint64, tag = "5")]
    pub version: u64,
    /// A replica that has applied this ...
    #[prost(uint64, tag = "6")]
    pub index: u64,
    /// ... has everything that is ever committed at or below this timestamp.
    #[prost(uint64, tag = "7")]
    pub safe_ts: u64,
}

/// Between a follower that serves reads and its leader.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ReplicaRead {
    /// The follower's number of the request.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The leader is to answer when it has applied so much; 0: when it knows what a fresh read has to see.
    #[prost(uint64, tag = "2")]
    pub shown: u64,
    /// From the leader.
    #[prost(bool, tag = "3")]
    pub is_answer: bool,
    /// In an answer: what the leader has applied; 0: the sender does not lead.
    #[prost(uint64, tag = "4")]
    pub applied: u64,
    /// In a question about a fresh read: what the leader's read gate is asked; 0: nothing.
    #[prost(uint64, tag = "5")]
    pub read_at: u64,
}

/// A follower's checksum.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ChecksumResult {
    /// The index of the command that asked for it.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// Absent if it could not be computed.
    #[prost(uint64, optional, tag = "2")]
    pub checksum: Option<u64>,
}

/// Between a leader and a follower whose log ends where the leader's does.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Hibernate {
    /// The leader's term.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// The end of its log.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// The follower hibernates; otherwise the leader asks it to.
    #[prost(bool, tag = "3")]
    pub agreed: bool,
}

/// A region's descriptor.
#[derive(Clone, PartialEq, Message)]
pub struct RegionRecord {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub start_key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub end_key: Bytes,
    #[prost(uint64, tag = "4")]
    pub conf_version: u64,
    #[prost(uint64, tag = "5")]
    pub version: u64,
    #[prost(message, repeated, tag = "6")]
    pub peers: Vec<PeerRecord>,
    /// 0 system, 1 data.
    #[prost(uint32, tag = "7")]
    pub space: u32,
    /// The region is the source of this merge.
    #[prost(message, optional, tag = "8")]
    pub merging: Option<MergingRecord>,
    /// The regions that it took over, and those that these had taken over.
    #[prost(message, repeated, tag = "9")]
    pub absorbed: Vec<AbsorbedRecord>,
    /// Versions below it may be gone.
    #[prost(uint64, tag = "20")]
    pub gc_safe_point: u64,
}

/// A merge that is prepared.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct MergingRecord {
    #[prost(uint64, tag = "1")]
    pub target: u64,
    #[prost(uint64, tag = "2")]
    pub conf_version: u64,
    #[prost(uint64, tag = "3")]
    pub version: u64,
    #[prost(uint64, tag = "4")]
    pub replicated_index: u64,
    #[prost(uint64, tag = "5")]
    pub prepared_index: u64,
}

/// A region that exists no more.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct AbsorbedRecord {
    #[prost(uint64, tag = "1")]
    pub region: u64,
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// By which it was taken over.
    #[prost(uint64, tag = "3")]
    pub by: u64,
}

/// What took a region over.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct AbsorberRecord {
    #[prost(uint64, tag = "1")]
    pub region: u64,
    /// Its version since then.
    #[prost(uint64, tag = "2")]
    pub version: u64,
}

/// A replica.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct PeerRecord {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub store: u64,
    /// The number of its [`PeerRole`].
    #[prost(uint32, tag = "3")]
    pub role: u32,
}

/// The state blob of a region's log stream.
#[derive(Clone, PartialEq, Message)]
pub struct GroupState {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// The peer voted for in `term`, or 0.
    #[prost(uint64, tag = "2")]
    pub vote: u64,
    /// A lower bound of the commit index.
    #[prost(uint64, tag = "3")]
    pub commit: u64,
    /// Entries at or below it are truncated.
    #[prost(uint64, tag = "4")]
    pub truncated_index: u64,
    /// The term of the entry at `truncated_index`.
    #[prost(uint64, tag = "5")]
    pub truncated_term: u64,
    /// The snapshot whose file still replaces a part of the log: accepted, and not known to be installed and flushed.
    #[prost(message, optional, tag = "6")]
    pub snapshot: Option<SnapshotInfo>,
    /// The longest promise, in nanoseconds, that this replica can have made to a leader and that may not have ended
    /// yet.
    #[prost(uint64, tag = "7")]
    pub promised_ns: u64,
    /// The replica whose votes and promises these are; 0 in blobs of earlier versions.
    #[prost(uint64, tag = "8")]
    pub peer: u64,
    /// The region whose command made this one, while nothing else is in the log: the command will put the descriptor.
    #[prost(uint64, tag = "9")]
    pub made_by: u64,
    /// The region that takes this one's range over, with its version from then on: the command is committed, and only
    /// the log is left when tables hold its result.
    #[prost(message, optional, tag = "10")]
    pub absorbed_by: Option<AbsorberRecord>,
}

impl From<&Region> for RegionRecord {
    fn from(region: &Region) -> RegionRecord {
        let record = |peer: &Peer| {
            let role = region.role(peer.id) as u32;
            PeerRecord { id: peer.id.0, store: peer.store.0, role }
        };
        RegionRecord {
            id: region.id.0,
            start_key: region.start_key.clone(),
            end_key: region.end_key.clone(),
            conf_version: region.epoch.conf_version,
            version: region.epoch.version,
            peers: region.peers.iter().map(record).collect(),
            space: match region.space {
                Space::System => 0,
                Space::Data => 1,
            },
            merging: region.merging().map(|merging| MergingRecord {
                target: merging.target.0,
                conf_version: merging.target_epoch.conf_version,
                version: merging.target_epoch.version,
                replicated_index: merging.replicated_index,
                prepared_index: merging.prepared_index,
            }),
            absorbed: {
                let record = |absorbed: &Absorbed| {
                    let Absorbed { region, version, by } = *absorbed;
                    AbsorbedRecord { region: region.0, version, by: by.0 }
                };
                region.merges.absorbed.iter().map(record).collect()
            },
            gc_safe_point: region.gc_safe_point,
        }
    }
}

impl RegionRecord {
    /// The descriptor, or what is wrong with the record.
    pub fn to_region(&self) -> Result<Region, &'static str> {
        let space = match self.space {
            0 => Space::System,
            1 => Space::Data,
            _ => return Err("a region of an unknown space"),
        };
        if self.id == 0 || self.peers.is_empty() || self.peers.iter().any(|peer| peer.id == 0 || peer.store == 0) {
            return Err("a region without identity or peers");
        }
        if !self.peers.is_sorted_by(|a, b| a.id < b.id) {
            return Err("a region whose peers are not in order");
        }
        if !self.end_key.is_empty() && self.start_key >= self.end_key {
            return Err("a region whose range is empty");
        }
        let mut roles = BTreeMap::new();
        for peer in &self.peers {
            let role = PeerRole::from_number(peer.role).ok_or("a replica of an unknown role")?;
            if role != PeerRole::Voter {
                roles.insert(PeerId(peer.id), role);
            }
        }
        let region = Region {
            id: RegionId(self.id),
            start_key: self.start_key.clone(),
            end_key: self.end_key.clone(),
            epoch: Epoch { conf_version: self.conf_version, version: self.version },
            peers: self.peers.iter().map(|p| Peer { id: PeerId(p.id), store: StoreId(p.store) }).collect(),
            roles,
            space,
            merges: self.merges()?,
            gc_safe_point: self.gc_safe_point,
        };
        let has = |votes: fn(PeerRole) -> bool| region.peers.iter().any(|peer| votes(region.role(peer.id)));
        if !has(PeerRole::votes_before) || !has(PeerRole::votes_after) {
            return Err("a region without a voter");
        }
        Ok(region)
    }

    fn merges(&self) -> Result<Merges, &'static str> {
        let absorbed = |record: &AbsorbedRecord| {
            let AbsorbedRecord { region, version, by } = *record;
            Absorbed { region: RegionId(region), version, by: RegionId(by) }
        };
        let absorbed: Vec<Absorbed> = self.absorbed.iter().map(absorbed).collect();
        let is_malformed = |absorbed: &Absorbed| absorbed.region.0 == 0 || absorbed.by.0 == 0;
        if absorbed.len() > 2 * ABSORBED_MAX || absorbed.iter().any(is_malformed) {
            return Err("a region with a malformed list of those that it took over");
        }
        let preparing = self.merging.map(|record| {
            let MergingRecord { target, conf_version, version, replicated_index, prepared_index } = record;
            let (target, target_epoch) = (RegionId(target), Epoch { conf_version, version });
            Box::new(Merging { target, target_epoch, replicated_index, prepared_index })
        });
        match &preparing {
            Some(merging) if merging.target.0 == 0 || merging.target.0 == self.id => Err("a merge without a target"),
            _ => Ok(Merges { preparing, absorbed }),
        }
    }
}
