//! The bytes of a command in a log entry.
//!
//! An entry has a context, a few bytes, and data, which a write takes over from its batch without a copy. The first
//! byte of the context is the format:
//!
//! | context | command |
//! |---|---|
//! | empty, and so is the data | none: a leader's first entry of its term |
//! | `2`, `epoch` | a write; the data is the encoded [`WriteBatch`] |
//! | `1`, `epoch` | a write of an earlier version: its batch has the families' earlier numbers |
//! | `4`, `epoch` | a write to families that earlier versions do not have ([`Families::later`]) |
//! | `3`, `epoch`, kind (1 byte), arguments | any other command; the data is empty unless the kind says otherwise |
//!
//! `epoch` is conf_version (varint), version (varint). A descriptor is a protobuf `RegionRecord` with its length before
//! it (varint), as is every key. The kinds of format 3:
//!
//! | kind | command | arguments |
//! |---|---|---|
//! | 1 | split | number of children (varint); of each: first key, region (varint), number of peers (varint), peers |
//! | 2 | prepare a merge | target (descriptor), replicated index (varint) |
//! | 3 | commit a merge | source (descriptor), prepared index (varint); data: entries, each with its length before it |
//! | 4 | roll a merge back | |
//! | 5 | compute a checksum | wall time in milliseconds (8 bytes LE) |
//! | 6 | verify a checksum | index (varint), checksum (8 bytes LE) |
//! | 7 | unsafe recovery | its number (varint), number of lost stores (varint), each store (varint), ascending |
//! | 8 | unsafe recovery that names learners | as 7, then their number (varint, not 0); of each, ascending: region, store (varints) |
//! | 20 | GC safe point | timestamp (8 bytes LE) |
//!
//! A membership change is an entry of the raft crate's kind 1, or 2 if it is a joint one, whose data are the crate's
//! own encoding. Its context is `1`, `epoch`, kind (1 byte), arguments:
//!
//! | entry | kind | change | arguments |
//! |---|---|---|---|
//! | 1 | 1 | add a voter | the replica (varint), its store (varint) |
//! | 1 | 2 | remove | the replica (varint), 0 (varint) |
//! | 1 | 3 | add a learner | the replica (varint), its store (varint) |
//! | 1 | 4, 5 | promote, demote | the replica (varint), 0 (varint) |
//! | 2 | 6 | jointly | number of replicas (varint); of each: 4 or 5 (1 byte), the replica (varint) |
//! | 2 | 7 | leave the joint configuration | |
//!
//! Writes and membership changes have the bytes of earlier versions, so nodes of two versions can share a region. A
//! node stops at any other format or kind, because other replicas may know it.

use super::{Action, Command, SPLIT_CHILDREN_MAX, SplitChild};
use crate::consensus::wire::RegionRecord;
use crate::families::Families;
use crate::recovery::Recovery;
use crate::region::{Epoch, MemberChange, Peer, PeerId, Region, RegionId, RoleChange, StoreId};
use bytes::Bytes;
use kontiki_engine::WriteBatch;
use kontiki_env::codec::{get_slice, get_u8, get_u64, get_varint, put_slice, put_u64, put_varint};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// A write whose batch has the families' earlier numbers. Distinguished by the version and not by the numbers: a node
/// that does not know the present numbers must stop, instead of refusing what others apply.
const FORMAT_EARLIER_WRITE: u8 = 1;
const FORMAT_WRITE: u8 = 2;
const FORMAT_COMMAND: u8 = 3;
/// A write to families that a node of an earlier version would refuse, while others apply it: it has to stop instead.
const FORMAT_LATER_WRITE: u8 = 4;

const KIND_SPLIT: u8 = 1;
const KIND_PREPARE_MERGE: u8 = 2;
const KIND_COMMIT_MERGE: u8 = 3;
const KIND_ROLLBACK_MERGE: u8 = 4;
const KIND_COMPUTE_CHECKSUM: u8 = 5;
const KIND_VERIFY_CHECKSUM: u8 = 6;
const KIND_RECOVER: u8 = 7;
const KIND_RECOVER_FROM_LEARNERS: u8 = 8;
const KIND_GC_SAFE_POINT: u8 = 20;

const FORMAT_CHANGE: u8 = 1;
const CHANGE_ADD: u8 = 1;
const CHANGE_REMOVE: u8 = 2;
const CHANGE_ADD_LEARNER: u8 = 3;
const CHANGE_PROMOTE: u8 = 4;
const CHANGE_DEMOTE: u8 = 5;
const CHANGE_JOINTLY: u8 = 6;
const CHANGE_LEAVE_JOINT: u8 = 7;

/// The raft crate's kind of an entry that carries a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A normal entry.
    Normal,
    /// A change of one member.
    MemberChange,
    /// A joint change, or its end.
    JointChange,
}

/// Why an entry's command cannot be decoded. The node must stop: other replicas may be able to decode it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The format or the kind of the command.
    #[error("a command of an unknown format; upgrade this node")]
    UnknownFormat,
    /// The data of a write.
    #[error("a batch that cannot be decoded; upgrade this node")]
    Batch,
}

/// The context of a write's entry. The batch is its data.
pub fn encode_write_context(families: &Families, epoch: Epoch, batch: &WriteBatch) -> Bytes {
    let format = if families.needs_later(batch) { FORMAT_LATER_WRITE } else { FORMAT_WRITE };
    context(format, epoch).into()
}

/// Encodes a command: carrier, context and data. Of a membership change there is no data: the raft crate makes it.
pub fn encode(families: &Families, command: Command) -> (Carrier, Bytes, Bytes) {
    let epoch = command.epoch;
    let mut out = context(FORMAT_COMMAND, epoch);
    let mut data = Bytes::new();
    match command.action {
        Action::Write(batch) => {
            let context = encode_write_context(families, epoch, &batch);
            return (Carrier::Normal, context, batch.into_bytes());
        }
        Action::ChangeMembers(change) => return (carrier_of(&change), encode_change(epoch, &change), data),
        Action::Split(children) => {
            out.push(KIND_SPLIT);
            put_split(&mut out, &children);
        }
        Action::PrepareMerge { target, replicated_index } => {
            out.push(KIND_PREPARE_MERGE);
            put_region(&mut out, &target);
            put_varint(&mut out, replicated_index);
        }
        Action::CommitMerge { source, prepared_index, entries } => {
            out.push(KIND_COMMIT_MERGE);
            put_region(&mut out, &source);
            put_varint(&mut out, prepared_index);
            let mut encoded = Vec::new();
            entries.iter().for_each(|entry| put_slice(&mut encoded, entry));
            data = encoded.into();
        }
        Action::RollbackMerge => out.push(KIND_ROLLBACK_MERGE),
        Action::Recover(recovery) => {
            put_recovery(&mut out, &recovery);
        }
        Action::SetGcSafePoint(ts) => {
            out.push(KIND_GC_SAFE_POINT);
            put_u64(&mut out, ts);
        }
        Action::ComputeChecksum { expires_after_ms } => {
            out.push(KIND_COMPUTE_CHECKSUM);
            put_u64(&mut out, expires_after_ms);
        }
        Action::VerifyChecksum { index, checksum } => {
            out.push(KIND_VERIFY_CHECKSUM);
            put_varint(&mut out, index);
            put_u64(&mut out, checksum);
        }
    }
    (Carrier::Normal, out.into(), data)
}

fn context(format: u8, epoch: Epoch) -> Vec<u8> {
    let mut out = vec![format];
    put_varint(&mut out, epoch.conf_version);
    put_varint(&mut out, epoch.version);
    out
}

fn carrier_of(change: &MemberChange) -> Carrier {
    match change {
        MemberChange::Jointly(_) | MemberChange::LeaveJoint => Carrier::JointChange,
        _ => Carrier::MemberChange,
    }
}

fn encode_change(epoch: Epoch, change: &MemberChange) -> Bytes {
    let mut out = context(FORMAT_CHANGE, epoch);
    let (kind, peer, store) = match change {
        MemberChange::Add(peer) => (CHANGE_ADD, peer.id, peer.store.0),
        MemberChange::AddLearner(peer) => (CHANGE_ADD_LEARNER, peer.id, peer.store.0),
        MemberChange::Remove(peer) => (CHANGE_REMOVE, *peer, 0),
        MemberChange::Promote(peer) => (CHANGE_PROMOTE, *peer, 0),
        MemberChange::Demote(peer) => (CHANGE_DEMOTE, *peer, 0),
        MemberChange::Jointly(changes) => {
            out.push(CHANGE_JOINTLY);
            put_varint(&mut out, changes.len() as u64);
            for change in changes {
                out.push(match change {
                    RoleChange::Promote(_) => CHANGE_PROMOTE,
                    RoleChange::Demote(_) => CHANGE_DEMOTE,
                });
                put_varint(&mut out, change.peer().0);
            }
            return out.into();
        }
        MemberChange::LeaveJoint => {
            out.push(CHANGE_LEAVE_JOINT);
            return out.into();
        }
    };
    out.push(kind);
    put_varint(&mut out, peer.0);
    put_varint(&mut out, store);
    out.into()
}

fn put_region(out: &mut Vec<u8>, region: &Region) {
    put_slice(out, &RegionRecord::from(region).encode_to_vec());
}

fn put_split(out: &mut Vec<u8>, children: &[SplitChild]) {
    put_varint(out, children.len() as u64);
    for child in children {
        put_slice(out, &child.start_key);
        put_varint(out, child.id.0);
        put_varint(out, child.peers.len() as u64);
        child.peers.iter().for_each(|peer| put_varint(out, peer.0));
    }
}

/// Decodes an entry's command. `None`: a leader's first entry of its term, which has no command.
pub fn decode(
    families: &Families,
    carrier: Carrier,
    context: &[u8],
    data: &Bytes,
) -> Result<Option<Command>, DecodeError> {
    if carrier != Carrier::Normal {
        let decoded = decode_change(context).filter(|(_, change)| carrier_of(change) == carrier);
        let (epoch, change) = decoded.ok_or(DecodeError::UnknownFormat)?;
        return Ok(Some(Command { epoch, action: Action::ChangeMembers(change) }));
    }
    if context.is_empty() && data.is_empty() {
        return Ok(None);
    }
    let mut rest = context;
    let head = get_u8(&mut rest).ok().zip(get_epoch(&mut rest));
    let (format, epoch) = head.ok_or(DecodeError::UnknownFormat)?;
    let action = match format {
        FORMAT_EARLIER_WRITE | FORMAT_WRITE | FORMAT_LATER_WRITE if rest.is_empty() => {
            let batch = WriteBatch::decode(data).map_err(|_| DecodeError::Batch)?;
            Action::Write(if format == FORMAT_EARLIER_WRITE { families.renumber(&batch) } else { batch })
        }
        FORMAT_COMMAND => get_action(&mut rest, data).filter(|_| rest.is_empty()).ok_or(DecodeError::UnknownFormat)?,
        _ => return Err(DecodeError::UnknownFormat),
    };
    Ok(Some(Command { epoch, action }))
}

/// The member that a membership change with this context removes, if it is one that does.
pub(crate) fn removed_by(context: &[u8]) -> Option<PeerId> {
    match decode_change(context)? {
        (_, MemberChange::Remove(id)) => Some(id),
        _ => None,
    }
}

/// Whether an entry with this context is a split, so that its replicas can be prepared before it is applied.
pub(crate) fn is_split(context: &[u8]) -> bool {
    is_of_kind(context, KIND_SPLIT)
}

/// The index through which every replica has the log, if an entry with this context prepares a merge.
pub(crate) fn replicated_by(mut context: &[u8]) -> Option<u64> {
    if !is_of_kind(context, KIND_PREPARE_MERGE) {
        return None;
    }
    let input = &mut context;
    let (_format, _epoch, _kind) = (get_u8(input).ok()?, get_epoch(input)?, get_u8(input).ok()?);
    let _target = get_slice(input).ok()?;
    get_varint(input).ok()
}

/// Whether an entry with this context commits a merge: its region is the target.
pub(crate) fn is_commit_of_merge(context: &[u8]) -> bool {
    is_of_kind(context, KIND_COMMIT_MERGE)
}

/// Whether an entry with this context is a write, or a leader's first one.
pub(crate) fn is_write(context: &[u8]) -> bool {
    matches!(context.first(), None | Some(&(FORMAT_WRITE | FORMAT_LATER_WRITE)))
}

/// Whether an entry with this context asks for a checksum of the state right after it.
pub(crate) fn is_checksum(context: &[u8]) -> bool {
    is_of_kind(context, KIND_COMPUTE_CHECKSUM)
}

fn is_of_kind(mut context: &[u8], kind: u8) -> bool {
    let input = &mut context;
    get_u8(input) == Ok(FORMAT_COMMAND) && get_epoch(input).is_some() && get_u8(input) == Ok(kind)
}

fn get_epoch(input: &mut &[u8]) -> Option<Epoch> {
    Some(Epoch { conf_version: get_varint(input).ok()?, version: get_varint(input).ok()? })
}

fn decode_change(mut input: &[u8]) -> Option<(Epoch, MemberChange)> {
    let input = &mut input;
    if get_u8(input).ok()? != FORMAT_CHANGE {
        return None;
    }
    let epoch = get_epoch(input)?;
    let change = match get_u8(input).ok()? {
        CHANGE_JOINTLY => MemberChange::Jointly(get_role_changes(input)?),
        CHANGE_LEAVE_JOINT => MemberChange::LeaveJoint,
        kind => {
            let (id, store) = (PeerId(get_varint(input).ok()?), get_varint(input).ok()?);
            match kind {
                CHANGE_ADD => MemberChange::Add(Peer { id, store: StoreId(store) }),
                CHANGE_ADD_LEARNER => MemberChange::AddLearner(Peer { id, store: StoreId(store) }),
                CHANGE_REMOVE if store == 0 => MemberChange::Remove(id),
                CHANGE_PROMOTE if store == 0 => MemberChange::Promote(id),
                CHANGE_DEMOTE if store == 0 => MemberChange::Demote(id),
                _ => return None,
            }
        }
    };
    input.is_empty().then_some((epoch, change))
}

fn get_role_changes(input: &mut &[u8]) -> Option<Vec<RoleChange>> {
    let count = get_varint(input).ok()?;
    // Each takes at least two bytes, so a damaged number reserves no memory.
    let count = usize::try_from(count).ok().filter(|count| *count <= input.len() / 2)?;
    let change = |input: &mut &[u8]| match (get_u8(input).ok()?, PeerId(get_varint(input).ok()?)) {
        (CHANGE_PROMOTE, id) => Some(RoleChange::Promote(id)),
        (CHANGE_DEMOTE, id) => Some(RoleChange::Demote(id)),
        _ => None,
    };
    (0..count).map(|_| change(input)).collect()
}

fn get_action(input: &mut &[u8], data: &Bytes) -> Option<Action> {
    let kind = get_u8(input).ok()?;
    if !data.is_empty() && kind != KIND_COMMIT_MERGE {
        return None;
    }
    Some(match kind {
        KIND_SPLIT => Action::Split(get_split(input)?),
        KIND_PREPARE_MERGE => {
            Action::PrepareMerge { target: get_region(input)?, replicated_index: get_varint(input).ok()? }
        }
        KIND_COMMIT_MERGE => {
            let (source, prepared_index) = (get_region(input)?, get_varint(input).ok()?);
            Action::CommitMerge { source, prepared_index, entries: get_entries(data)? }
        }
        KIND_ROLLBACK_MERGE => Action::RollbackMerge,
        KIND_COMPUTE_CHECKSUM => Action::ComputeChecksum { expires_after_ms: get_u64(input).ok()? },
        KIND_VERIFY_CHECKSUM => {
            Action::VerifyChecksum { index: get_varint(input).ok()?, checksum: get_u64(input).ok()? }
        }
        KIND_GC_SAFE_POINT => Action::SetGcSafePoint(get_u64(input).ok()?),
        KIND_RECOVER => Action::Recover(get_recovery(input)?),
        KIND_RECOVER_FROM_LEARNERS => {
            let recovery = get_recovery(input)?;
            Action::Recover(Recovery { learners: get_learners(input)?, ..recovery })
        }
        _ => return None,
    })
}

fn get_recovery(input: &mut &[u8]) -> Option<Recovery> {
    let (number, count) = (get_varint(input).ok()?, get_varint(input).ok()?);
    let mut lost = BTreeSet::new();
    for _ in 0..count {
        // Ascending, so each recovery has one encoding.
        let store = StoreId(get_varint(input).ok()?);
        if lost.last().is_some_and(|last| *last >= store) {
            return None;
        }
        lost.insert(store);
    }
    Some(Recovery { number, lost, ..Recovery::default() })
}

fn put_recovery(out: &mut Vec<u8>, recovery: &Recovery) {
    let kind = if recovery.learners.is_empty() { KIND_RECOVER } else { KIND_RECOVER_FROM_LEARNERS };
    out.push(kind);
    put_varint(out, recovery.number);
    put_varint(out, recovery.lost.len() as u64);
    recovery.lost.iter().for_each(|store| put_varint(out, store.0));
    if kind == KIND_RECOVER_FROM_LEARNERS {
        put_varint(out, recovery.learners.len() as u64);
        for (region, store) in &recovery.learners {
            put_varint(out, region.0);
            put_varint(out, store.0);
        }
    }
}

fn get_learners(input: &mut &[u8]) -> Option<BTreeMap<RegionId, StoreId>> {
    let count = get_varint(input).ok().filter(|count| *count != 0)?;
    let mut learners = BTreeMap::new();
    for _ in 0..count {
        let (region, store) = (RegionId(get_varint(input).ok()?), StoreId(get_varint(input).ok()?));
        // Ascending, as the lost stores are.
        if learners.last_key_value().is_some_and(|(last, _)| *last >= region) {
            return None;
        }
        learners.insert(region, store);
    }
    Some(learners)
}

fn get_region(input: &mut &[u8]) -> Option<Region> {
    RegionRecord::decode(get_slice(input).ok()?).ok()?.to_region().ok()
}

fn get_split(input: &mut &[u8]) -> Option<Vec<SplitChild>> {
    let count = get_varint(input).ok().filter(|count| *count <= SPLIT_CHILDREN_MAX as u64)?;
    let mut children = Vec::new();
    for _ in 0..count {
        let start_key = Bytes::copy_from_slice(get_slice(input).ok()?);
        let id = RegionId(get_varint(input).ok()?);
        let peers = get_varint(input).ok()?;
        // Each takes at least one byte, so a damaged number reserves no memory.
        let peers = usize::try_from(peers).ok().filter(|peers| *peers <= input.len())?;
        let peers = (0..peers).map(|_| get_varint(input).ok().map(PeerId)).collect::<Option<Vec<PeerId>>>()?;
        children.push(SplitChild { start_key, id, peers });
    }
    Some(children)
}

fn get_entries(data: &Bytes) -> Option<Vec<Bytes>> {
    let mut rest = data.as_ref();
    let mut entries = Vec::new();
    while !rest.is_empty() {
        entries.push(data.slice_ref(get_slice(&mut rest).ok()?));
    }
    Some(entries)
}

#[cfg(test)]
#[path = "codec_test.rs"]
mod tests;
