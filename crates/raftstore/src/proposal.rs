//! A proposal's log entry: the header beside the batch, and the check at apply.
//!
//! Header (the entry's context):
//!
//! | bytes | field |
//! |---|---|
//! | 1 | format version, 2; 1 has the same fields, and the families' earlier numbers in its batch |
//! | varint | the proposer's `conf_version` |
//! | varint | the proposer's `version` |
//!
//! The entry's data is the encoded [`WriteBatch`], taken over without a copy. An entry with neither is a leader's first
//! entry of its term.
//!
//! A membership change is an entry of the raft crate's kind 1 (its data are the crate's own encoding), with this
//! context:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | format version, 1 |
//! | varint, varint | the proposer's `conf_version` and `version` |
//! | 1 | 1 add, 2 remove |
//! | varint, varint | the replica's identity, and its store (0 when it is removed) |

use crate::error::RegionError;
use crate::families::{first_foreign_key, renumber};
use crate::region::{Epoch, MemberChange, Peer, PeerId, Region, StoreId};
use bytes::Bytes;
use kontiki_engine::WriteBatch;
use kontiki_env::codec::{get_u8, get_varint, put_varint};

/// Version of the header's format.
const FORMAT: u8 = 2;
/// The format whose batches have the families' earlier numbers. Distinguished by the version and not by the numbers: a
/// node that does not know the present numbers must stop, instead of refusing what others apply.
const FORMAT_EARLIER: u8 = 1;

/// Encodes a header.
pub fn encode_header(epoch: Epoch) -> Bytes {
    let mut out = vec![FORMAT];
    put_varint(&mut out, epoch.conf_version);
    put_varint(&mut out, epoch.version);
    out.into()
}

/// The format and the proposer's epoch.
fn decode_header(mut input: &[u8]) -> Option<(u8, Epoch)> {
    let input = &mut input;
    let format = get_u8(input).ok().filter(|format| (FORMAT_EARLIER..=FORMAT).contains(format))?;
    let epoch = Epoch { conf_version: get_varint(input).ok()?, version: get_varint(input).ok()? };
    input.is_empty().then_some((format, epoch))
}

/// Version of a membership change's format.
const CHANGE_FORMAT: u8 = 1;
const CHANGE_ADD: u8 = 1;
const CHANGE_REMOVE: u8 = 2;

/// Encodes a membership change.
pub fn encode_change(epoch: Epoch, change: MemberChange) -> Bytes {
    let (kind, peer, store) = match change {
        MemberChange::Add(peer) => (CHANGE_ADD, peer.id, peer.store.0),
        MemberChange::Remove(peer) => (CHANGE_REMOVE, peer, 0),
    };
    let mut out = vec![CHANGE_FORMAT];
    put_varint(&mut out, epoch.conf_version);
    put_varint(&mut out, epoch.version);
    out.push(kind);
    put_varint(&mut out, peer.0);
    put_varint(&mut out, store);
    out.into()
}

fn decode_change(mut input: &[u8]) -> Option<(Epoch, MemberChange)> {
    let input = &mut input;
    if get_u8(input).ok()? != CHANGE_FORMAT {
        return None;
    }
    let epoch = Epoch { conf_version: get_varint(input).ok()?, version: get_varint(input).ok()? };
    let (kind, id, store) = (get_u8(input).ok()?, PeerId(get_varint(input).ok()?), get_varint(input).ok()?);
    let change = match kind {
        CHANGE_ADD => MemberChange::Add(Peer { id, store: StoreId(store) }),
        CHANGE_REMOVE if store == 0 => MemberChange::Remove(id),
        _ => return None,
    };
    input.is_empty().then_some((epoch, change))
}

/// Decides about a committed membership change: the change and the descriptor that it leads to, or the proposer's
/// answer. Equal on every replica, because `region` is the descriptor at that place of the log. An `Err` as for
/// [`decide_write`].
pub fn decide_change(region: &Region, context: &[u8]) -> Result<Result<(MemberChange, Region), RegionError>, String> {
    let Some((epoch, change)) = decode_change(context) else {
        return Err("a membership change of an unknown format; upgrade this node".into());
    };
    let changed = region.changed(change).ok().filter(|_| epoch == region.epoch);
    let refused = || RegionError::EpochNotMatch { current: vec![region.clone()] };
    Ok(changed.map(|changed| (change, changed)).ok_or_else(refused))
}

/// What to do with a committed proposal; equal on every replica.
pub enum ApplyDecision {
    /// Write this.
    Write(WriteBatch),
    /// Write nothing; the proposer gets this answer.
    Refuse(RegionError),
}

/// Decides about a committed proposal, or returns why it cannot be decoded (then the node must stop: other replicas may
/// be able to decode it).
///
/// Only the epoch's version is compared: a membership change moves no key.
pub fn decide_write(region: &Region, header: &[u8], data: &[u8]) -> Result<ApplyDecision, String> {
    let Some((format, epoch)) = decode_header(header) else {
        return Err("an entry's header is of an unknown format; upgrade this node".into());
    };
    let mut batch = WriteBatch::decode(data).map_err(|_| "an entry's batch cannot be decoded; upgrade this node")?;
    if format == FORMAT_EARLIER {
        batch = renumber(&batch);
    }
    if epoch.version != region.epoch.version || first_foreign_key(region, &batch).is_some() {
        return Ok(ApplyDecision::Refuse(RegionError::EpochNotMatch { current: vec![region.clone()] }));
    }
    Ok(ApplyDecision::Write(batch))
}

#[cfg(test)]
#[path = "proposal_test.rs"]
mod tests;
