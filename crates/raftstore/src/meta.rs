//! What raftstore keeps in family `meta` ([`crate::Families::meta`]), and the state blobs of its log streams.
//!
//! | key | value |
//! |---|---|
//! | `01` | store identity: version (1 byte, 1), cluster id (8 bytes LE), store id (8 bytes LE) |
//! | `02`, region id (8 bytes BE) | region descriptor: version (1 byte, 1), protobuf `RegionRecord` |
//! | `03`, region id (8 bytes BE) | applied position: version (1 byte, 1), index (8 bytes LE), term (8 bytes LE) |
//!
//! | `05`, region id (8 bytes BE) | tombstone of a replica that was destroyed here: version (1 byte, 1), its identity (8 bytes LE; 0 if it is not known), conf_version of its removal (8 bytes LE); if the region was merged: into which (8 bytes LE), the version of that one (8 bytes LE) |
//!
//! | `06` | the last unsafe recovery: version (1 byte, 1), its number (8 bytes LE), each lost store (8 bytes LE), ascending; or version 2, its number, the number of learners that it names (8 bytes LE), of each, ascending: region, store (8 bytes LE), then the lost stores |
//!
//! Tags from `10` on belong to the node that owns the directory (crates/server, `driver/formation.rs`).
//!
//! The descriptor and the applied position change in the same batch as the data they describe. The stream of a region
//! has the region's id; its state blob is version (1 byte, 1), protobuf `GroupState`; its entries are protobuf `Entry`.
//!
//! Groups start at position (1, 1) and not at 0, so that a replica that joins later, with an empty log, cannot mistake
//! a log from its beginning for the whole state: it needs a snapshot.

use crate::consensus::log::Position;
use crate::consensus::wire::{GroupState, RegionRecord};
use crate::error::RecoverError;
use crate::recovery::Recovery;
use crate::region::{Absorber, PeerId, Region, RegionId, StoreId, StoreIdentity};
use bytes::Bytes;
use kontiki_engine::{BatchOp, Commit, Direction, Durability, Family, Range, StreamId, StreamOp, View, WriteBatch};
use kontiki_env::codec::{get_u8, get_u64, put_u64};
use prost::Message;
use std::collections::BTreeMap;

const TAG_IDENTITY: u8 = 1;
const TAG_REGION: u8 = 2;
const TAG_APPLIED: u8 = 3;
/// 4 belongs to the conversion of earlier directories (crates/server, `driver/convert.rs`).
const TAG_TOMBSTONE: u8 = 5;
const TAG_RECOVERY: u8 = 6;
/// Version of each value's format.
const FORMAT: u8 = 1;
/// That of a recovery that names learners.
const FORMAT_LEARNERS: u8 = 2;

/// Where every group's log begins.
pub(crate) const INITIAL: Position = Position { index: 1, term: 1 };

fn key(tag: u8, region: RegionId) -> [u8; 9] {
    let mut key = [tag; 9];
    key[1..].copy_from_slice(&region.0.to_be_bytes());
    key
}

fn damaged(what: &str) -> RecoverError {
    RecoverError::Damaged(what.into())
}

fn versioned<'a>(value: &'a [u8], what: &str) -> Result<&'a [u8], RecoverError> {
    match value.split_first() {
        Some((&FORMAT, rest)) => Ok(rest),
        Some((version, _)) => Err(damaged(&format!("{what} of format {version}; this version knows {FORMAT}"))),
        None => Err(damaged(&format!("an empty {what}"))),
    }
}

/// The region and the index if the operation sets a region's applied position.
pub fn applied_by(meta: Family, op: &BatchOp<'_>) -> Option<(RegionId, u64)> {
    let BatchOp::Put { family, key: [TAG_APPLIED, region @ ..], value } = op else { return None };
    if *family != meta {
        return None;
    }
    let region = RegionId(u64::from_be_bytes((*region).try_into().ok()?));
    Some((region, decode_applied(value).ok()?.index))
}

/// The region whose descriptor the operation puts, if it is one of those.
pub fn described_by(meta: Family, op: &BatchOp<'_>) -> Option<RegionId> {
    let BatchOp::Put { family, key: [TAG_REGION, region @ ..], .. } = op else { return None };
    if *family != meta {
        return None;
    }
    Some(RegionId(u64::from_be_bytes((*region).try_into().ok()?)))
}

/// The keys in `meta` that are equal on all replicas of a region with the same applied index.
pub fn replicated_ranges(region: RegionId) -> [Range; 2] {
    [TAG_REGION, TAG_APPLIED].map(|tag| Range::prefix(key(tag, region)))
}

/// Reads which cluster and store a directory belongs to; `None` if it was never bootstrapped.
pub fn identity(meta: Family, view: &dyn View) -> Result<Option<StoreIdentity>, RecoverError> {
    let Some(value) = view.get(meta, &[TAG_IDENTITY])? else { return Ok(None) };
    let mut rest = versioned(&value, "store identity")?;
    match (get_u64(&mut rest), get_u64(&mut rest)) {
        (Ok(cluster), Ok(store)) if rest.is_empty() && cluster != 0 && store != 0 => {
            Ok(Some(StoreIdentity { cluster, store: StoreId(store) }))
        }
        _ => Err(damaged("a malformed store identity")),
    }
}

fn encode_message(message: &impl Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + message.encoded_len());
    out.push(FORMAT);
    message.encode(&mut out).expect("a Vec grows");
    out
}

pub(crate) fn encode_group_state(state: &GroupState) -> Bytes {
    encode_message(state).into()
}

pub(crate) fn decode_group_state(blob: &[u8]) -> Result<GroupState, RecoverError> {
    GroupState::decode(versioned(blob, "group state")?).map_err(|_| damaged("a malformed group state"))
}

/// Puts a region's descriptor.
pub(crate) fn put_region(meta: Family, batch: &mut WriteBatch, region: &Region) {
    batch.put(meta, key(TAG_REGION, region.id), encode_message(&RegionRecord::from(region)));
}

/// Puts a region's applied position.
pub(crate) fn put_applied(meta: Family, batch: &mut WriteBatch, region: RegionId, position: Position) {
    assert!(position.index >= INITIAL.index && position.term >= INITIAL.term, "groups begin at {INITIAL:?}");
    let mut value = vec![FORMAT];
    put_u64(&mut value, position.index);
    put_u64(&mut value, position.term);
    batch.put(meta, key(TAG_APPLIED, region), &value);
}

fn decode_region(value: &[u8]) -> Result<Region, RecoverError> {
    let record = RegionRecord::decode(versioned(value, "region descriptor")?);
    let record = record.map_err(|_| damaged("a malformed region descriptor"))?;
    record.to_region().map_err(damaged)
}

fn decode_applied(mut value: &[u8]) -> Result<Position, RecoverError> {
    let value = &mut value;
    match (get_u8(value), get_u64(value), get_u64(value)) {
        (Ok(FORMAT), Ok(index), Ok(term)) if value.is_empty() => Ok(Position { index, term }),
        _ => Err(damaged("a malformed applied position")),
    }
}

/// What is left of a replica that was destroyed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// Its identity, if it is known: never used again.
    pub peer: PeerId,
    /// Of the descriptor that no longer had it.
    pub conf_version: u64,
    /// The region exists no more: it was merged into this one, which had this version then.
    pub absorbed: Option<Absorber>,
}

impl Tombstone {
    /// Whether a message for `peer`, from a replica with this conf_version, may be for another replica than the one
    /// that was destroyed, and not for one before that. The conf_version may be the same: the destroyed replica may
    /// have learned of its removal from a descriptor in which its successor is a member already.
    pub fn admits(&self, peer: PeerId, conf_version: u64) -> bool {
        let may_exist = self.absorbed.is_none() && self.peer.0 != 0;
        may_exist && peer != self.peer && conf_version >= self.conf_version
    }
}

/// Removes a region's descriptor and applied position.
pub(crate) fn delete_region(meta: Family, batch: &mut WriteBatch, region: RegionId) {
    batch.delete(meta, key(TAG_REGION, region));
    batch.delete(meta, key(TAG_APPLIED, region));
}

/// Removes a region's descriptor and applied position, and puts a tombstone.
pub(crate) fn put_tombstone(meta: Family, batch: &mut WriteBatch, region: RegionId, tombstone: Tombstone) {
    delete_region(meta, batch, region);
    let mut value = vec![FORMAT];
    put_u64(&mut value, tombstone.peer.0);
    put_u64(&mut value, tombstone.conf_version);
    if let Some(absorbed) = tombstone.absorbed {
        put_u64(&mut value, absorbed.region.0);
        put_u64(&mut value, absorbed.version);
    }
    batch.put(meta, key(TAG_TOMBSTONE, region), &value);
}

/// All tombstones in a view.
pub(crate) fn tombstones(meta: Family, view: &dyn View) -> Result<BTreeMap<RegionId, Tombstone>, RecoverError> {
    let mut entries = view.entries(meta, Range::region(&[TAG_TOMBSTONE], &[TAG_TOMBSTONE + 1]), Direction::Forward)?;
    let mut tombstones = BTreeMap::new();
    while let Some((key, value)) = entries.next().transpose()? {
        let region = key.get(1..).and_then(|id| Some(RegionId(u64::from_be_bytes(id.try_into().ok()?))));
        let mut rest = versioned(&value, "tombstone")?;
        let malformed = || damaged("a malformed tombstone");
        let mut number = || get_u64(&mut rest).map_err(|_| malformed());
        let (peer, conf_version) = (PeerId(number()?), number()?);
        let absorbed = match number() {
            Ok(absorber) => Some(Absorber { region: RegionId(absorber), version: number()? }),
            Err(_) => None,
        };
        if !rest.is_empty() {
            return Err(malformed());
        }
        tombstones.insert(region.ok_or_else(malformed)?, Tombstone { peer, conf_version, absorbed });
    }
    Ok(tombstones)
}

/// Puts what is stated of lost stores.
pub fn put_recovery(meta: Family, batch: &mut WriteBatch, recovery: &Recovery) {
    assert!(recovery.number != 0 && !recovery.lost.is_empty(), "a recovery has a number and a reason");
    let names_learners = !recovery.learners.is_empty();
    let mut value = vec![if names_learners { FORMAT_LEARNERS } else { FORMAT }];
    put_u64(&mut value, recovery.number);
    if names_learners {
        put_u64(&mut value, recovery.learners.len() as u64);
        for (region, store) in &recovery.learners {
            put_u64(&mut value, region.0);
            put_u64(&mut value, store.0);
        }
    }
    recovery.lost.iter().for_each(|store| put_u64(&mut value, store.0));
    batch.put(meta, [TAG_RECOVERY], &value);
}

/// What is stated of lost stores.
pub fn recovery(meta: Family, view: &dyn View) -> Result<Recovery, RecoverError> {
    let Some(value) = view.get(meta, &[TAG_RECOVERY])? else { return Ok(Recovery::default()) };
    let malformed = || damaged("a malformed record of an unsafe recovery");
    let names_learners = value.first() == Some(&FORMAT_LEARNERS);
    let mut rest = match value.get(1..) {
        Some(rest) if names_learners => rest,
        _ => versioned(&value, "record of an unsafe recovery")?,
    };
    let mut number = || get_u64(&mut rest).map_err(|_| malformed());
    let mut recovery = Recovery { number: number()?, ..Recovery::default() };
    for _ in 0..if names_learners { number()? } else { 0 } {
        recovery.learners.insert(RegionId(number()?), StoreId(number()?));
    }
    while !rest.is_empty() {
        recovery.lost.insert(StoreId(get_u64(&mut rest).map_err(|_| malformed())?));
    }
    if recovery.number == 0 || recovery.lost.is_empty() { Err(malformed()) } else { Ok(recovery) }
}

/// The key of a region's descriptor.
pub fn region_key(region: RegionId) -> [u8; 9] {
    key(TAG_REGION, region)
}

/// A region's descriptor in a view.
pub fn region(meta: Family, view: &dyn View, region: RegionId) -> Result<Option<Region>, RecoverError> {
    view.get(meta, &key(TAG_REGION, region))?.map(|value| decode_region(&value)).transpose()
}

/// All descriptors in a view, by ascending region id.
pub fn regions(meta: Family, view: &dyn View) -> Result<Vec<Region>, RecoverError> {
    let range = Range::region(&[TAG_REGION], &[TAG_REGION + 1]);
    let mut entries = view.entries(meta, range, Direction::Forward)?;
    let mut regions = Vec::new();
    while let Some((_, value)) = entries.next().transpose()? {
        regions.push(decode_region(&value)?);
    }
    Ok(regions)
}

pub(crate) fn applied_position(
    meta: Family,
    view: &dyn View,
    region: RegionId,
) -> Result<Option<Position>, RecoverError> {
    view.get(meta, &key(TAG_APPLIED, region))?.map(|value| decode_applied(&value)).transpose()
}

/// A region's applied index in a view. Of a flushed view: what [`crate::Event::Flushed`] reports.
pub fn applied_index(meta: Family, view: &dyn View, region: RegionId) -> Result<Option<u64>, RecoverError> {
    Ok(applied_position(meta, view, region)?.map(|position| position.index))
}

/// The applied indices of all regions in a view, by ascending region. Of a flushed view: what [`crate::Event::Flushed`]
/// reports.
pub fn applied_indices(meta: Family, view: &dyn View) -> Result<Vec<(RegionId, u64)>, RecoverError> {
    let mut entries = view.entries(meta, Range::region(&[TAG_APPLIED], &[TAG_APPLIED + 1]), Direction::Forward)?;
    let mut applied = Vec::new();
    while let Some((key, value)) = entries.next().transpose()? {
        let region = key.get(1..).and_then(|id| Some(RegionId(u64::from_be_bytes(id.try_into().ok()?))));
        let region = region.ok_or_else(|| damaged("a malformed key of an applied position"))?;
        applied.push((region, decode_applied(&value)?.index));
    }
    Ok(applied)
}

/// The state of a group that begins.
pub(crate) fn initial_state() -> GroupState {
    GroupState {
        term: INITIAL.term,
        commit: INITIAL.index,
        truncated_index: INITIAL.index,
        truncated_term: INITIAL.term,
        ..GroupState::default()
    }
}

/// The first write of a new store: identity, regions, and the beginnings of their logs. All or nothing.
pub(crate) fn bootstrap(meta: Family, identity: &StoreIdentity, regions: &[Region]) -> Commit {
    assert!(identity.cluster != 0 && identity.store.0 != 0, "identities are not zero");
    let mut batch = WriteBatch::new();
    let mut streams = Vec::new();
    let mut value = vec![FORMAT];
    put_u64(&mut value, identity.cluster);
    put_u64(&mut value, identity.store.0);
    batch.put(meta, [TAG_IDENTITY], &value);
    for region in regions {
        assert!(region.id.0 != 0, "identities are not zero");
        assert!(RegionRecord::from(region).to_region().as_ref() == Ok(region), "a descriptor is well-formed");
        let overlaps = |other: &&Region| other.id != region.id && other.overlaps(region);
        assert!(!regions.iter().any(|other| overlaps(&other)), "the regions of a store do not overlap");
        assert!(region.peer_on(identity.store).is_some(), "a store is bootstrapped with its own regions");
        put_region(meta, &mut batch, region);
        put_applied(meta, &mut batch, region.id, INITIAL);
        let (stream, state) = (StreamId(region.id.0), initial_state());
        streams.push(StreamOp::Truncate { stream, through_index: INITIAL.index });
        streams.push(StreamOp::State { stream, state: encode_group_state(&state) });
    }
    Commit { batch, streams, durability: Durability::Sync, unchanged: vec![] }
}
