//! What placement persists, byte by byte.
//!
//! All of it is stored in column family [`FAMILY`]. Integers in keys are big-endian, so that records of a kind are in
//! id order; integers in values are little-endian. `slice` is a varint length and the bytes. Every value starts with a
//! format version (1 byte, now 1). The engine verifies checksums on reads, so there is no checksum here.
//!
//! | key | value after the version byte |
//! |---|---|
//! | `0x01` | marker of a bootstrapped cluster: nothing more |
//! | `0x02` | timestamps: 8 bytes, the *bound*: every timestamp handed out has a physical part below it |
//! | `0x03` | ids: 8 bytes, the *bound*: every id handed out is below it |
//! | `0x04` | garbage collection: 8 bytes, the safe point |
//! | `0x10` | garbage collection: 8 bytes, the transaction safe point; varint count of barriers; for each, by ascending name: slice name, timestamp (8 bytes), when it expires (8 bytes, milliseconds of the oracle; all ones: never). Absent in the state of earlier versions |
//! | `0x05`, store id (8 bytes) | slice address, slice status address, slice version |
//! | `0x20`, keyspace id (8 bytes) | slice name, state (1 byte: 0 enabled, 1 disabled, 2 archived, 3 tombstone), created (8 bytes, milliseconds since the Unix epoch), state changed (the same) |
//! | `0x21` | the external timestamp: 8 bytes; absent if none was ever set |
//! | `0x06`, region id (8 bytes) | flags (1 byte: bit 0 system), slice start key, slice end key, conf_ver (8 bytes), version (8 bytes), varint count of peers; for each peer id (8 bytes), store id (8 bytes), role (1 byte: 0 voter, 1 learner) |
//!
//! Bounds, safe points and the external timestamp never go down: each write carries a value at or above every
//! earlier one, and the log keeps writes in order, so it makes no difference which of the writes with an unknown
//! outcome took effect.

use crate::gc_record::{Barrier, GcRecord};
use crate::oracle::PHYSICAL_MS_MAX;
use crate::{Epoch, Error, FIRST_ID, Keyspace, KeyspaceState, Peer, PeerRole, Region, Result, Store};
use bytes::Bytes;
use kontiki_engine::{Direction, Family, Range, View, WriteBatch};
use kontiki_env::codec::{Truncated, get_slice, get_u8, get_u64, get_varint, put_slice, put_u64, put_varint};

/// The column family that holds placement's state.
pub const FAMILY: Family = Family::reserved(4);

const FORMAT: u8 = 1;
const KEY_BOOTSTRAPPED: &[u8] = &[1];
const KEY_TIMESTAMP_BOUND: &[u8] = &[2];
const KEY_ID_BOUND: &[u8] = &[3];
const KEY_SAFE_POINT: &[u8] = &[4];
const KEY_GC: &[u8] = &[0x10];
const TAG_STORE: u8 = 5;
const TAG_REGION: u8 = 6;
const TAG_KEYSPACE: u8 = 0x20;
const KEY_EXTERNAL_TIMESTAMP: &[u8] = &[0x21];

/// Far more than a cluster can use, and far below the maximum of the type, so sums of ids cannot overflow.
const ID_BOUND_MAX: u64 = 1 << 62;

/// What a new leader finds.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub bootstrapped: bool,
    pub timestamp_bound_ms: u64,
    pub id_bound: u64,
    pub gc: GcRecord,
    pub stores: Vec<Store>,
    pub regions: Vec<Region>,
    pub keyspaces: Vec<Keyspace>,
    pub external_timestamp: u64,
}

/// The first state of a cluster: its stores and its regions (the placement group with `system` set, and data regions
/// that do not overlap). Every node of the group writes this same batch at its first start. Ids below [`FIRST_ID`]
/// belong to the caller that chose the ids given here.
///
/// # Panics
/// If an id is 0 or is not below [`FIRST_ID`], or a region has no peer: the callers compute these from a
/// configuration that they have checked.
pub fn bootstrap(stores: &[Store], regions: &[Region]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(FAMILY, KEY_BOOTSTRAPPED, [FORMAT]);
    put_number(&mut batch, KEY_TIMESTAMP_BOUND, 0);
    put_id_bound(&mut batch, FIRST_ID);
    put_number(&mut batch, KEY_SAFE_POINT, 0);
    for store in stores {
        assert!((1..FIRST_ID).contains(&store.id), "the first stores have small ids");
        put_store(&mut batch, store);
    }
    for region in regions {
        assert!((1..FIRST_ID).contains(&region.id), "the first regions have small ids");
        assert!(!region.peers.is_empty(), "a region has a peer");
        put_region(&mut batch, region);
    }
    batch
}

/// What earlier leaders may have handed out, as far as a replica knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Every timestamp has a physical part below it.
    pub timestamp_ms: u64,
    /// Every id is below it.
    pub id: u64,
}

/// Reads the bounds of a replica; zero if it has no state.
pub fn bounds(view: &dyn View) -> Result<Bounds> {
    let Loaded { timestamp_bound_ms, id_bound, .. } = load(view)?;
    Ok(Bounds { timestamp_ms: timestamp_bound_ms, id: id_bound })
}

/// Adds the bound of timestamps.
pub(crate) fn put_timestamp_bound(batch: &mut WriteBatch, bound_ms: u64) {
    assert!(bound_ms <= PHYSICAL_MS_MAX, "the physical part of a timestamp has 46 bits");
    put_number(batch, KEY_TIMESTAMP_BOUND, bound_ms);
}

/// Adds the bound of ids.
pub(crate) fn put_id_bound(batch: &mut WriteBatch, bound: u64) {
    put_number(batch, KEY_ID_BOUND, bound);
}

/// Adds the state of garbage collection.
pub(crate) fn put_gc(batch: &mut WriteBatch, gc: &GcRecord) {
    put_number(batch, KEY_SAFE_POINT, gc.safe_point);
    let mut value = vec![FORMAT];
    put_u64(&mut value, gc.txn_safe_point);
    put_varint(&mut value, gc.barriers.len() as u64);
    for (name, barrier) in &gc.barriers {
        put_slice(&mut value, name.as_bytes());
        put_u64(&mut value, barrier.ts);
        put_u64(&mut value, barrier.expires_at_ms);
    }
    batch.put(FAMILY, KEY_GC, &value);
}

/// Adds a store.
pub(crate) fn put_store(batch: &mut WriteBatch, store: &Store) {
    let mut value = vec![FORMAT];
    put_slice(&mut value, store.address.as_bytes());
    put_slice(&mut value, store.status_address.as_bytes());
    put_slice(&mut value, store.version.as_bytes());
    batch.put(FAMILY, tagged(TAG_STORE, store.id), &value);
}

fn put_region(batch: &mut WriteBatch, region: &Region) {
    let mut value = vec![FORMAT, u8::from(region.system)];
    put_slice(&mut value, &region.start_key);
    put_slice(&mut value, &region.end_key);
    put_u64(&mut value, region.epoch.conf_ver);
    put_u64(&mut value, region.epoch.version);
    put_varint(&mut value, region.peers.len() as u64);
    for peer in &region.peers {
        put_u64(&mut value, peer.id);
        put_u64(&mut value, peer.store_id);
        value.push(u8::from(peer.role() == PeerRole::Learner));
    }
    batch.put(FAMILY, tagged(TAG_REGION, region.id), &value);
}

/// Adds a keyspace.
pub(crate) fn put_keyspace(batch: &mut WriteBatch, keyspace: &Keyspace) {
    let mut value = vec![FORMAT];
    put_slice(&mut value, keyspace.name.as_bytes());
    // A state has a value of one byte.
    value.push(keyspace.state() as u8);
    put_u64(&mut value, keyspace.created_ms);
    put_u64(&mut value, keyspace.state_changed_ms);
    if keyspace.nonce != 0 {
        put_u64(&mut value, keyspace.nonce);
    }
    batch.put(FAMILY, tagged(TAG_KEYSPACE, keyspace.id.into()), &value);
}

/// Adds the external timestamp.
pub(crate) fn put_external_timestamp(batch: &mut WriteBatch, timestamp: u64) {
    put_number(batch, KEY_EXTERNAL_TIMESTAMP, timestamp);
}

fn put_number(batch: &mut WriteBatch, key: &[u8], number: u64) {
    let mut value = vec![FORMAT];
    put_u64(&mut value, number);
    batch.put(FAMILY, key, &value);
}

fn tagged(tag: u8, id: u64) -> Vec<u8> {
    let mut key = vec![tag];
    key.extend_from_slice(&id.to_be_bytes());
    key
}

/// Reads everything. An empty family is a cluster that was not bootstrapped; a family with the marker but without
/// a bound is corrupt.
pub(crate) fn load(view: &dyn View) -> Result<Loaded> {
    let Some(marker) = view.get(FAMILY, KEY_BOOTSTRAPPED)? else {
        return Ok(Loaded::default());
    };
    decode("the bootstrap marker", &marker, |_| Ok(()))?;
    let timestamp_bound_ms = load_number(view, KEY_TIMESTAMP_BOUND, "the bound of timestamps")?;
    if timestamp_bound_ms > PHYSICAL_MS_MAX {
        let what = format!("{timestamp_bound_ms} ms is beyond the greatest timestamp, {PHYSICAL_MS_MAX} ms");
        return Err(Error::Corrupt { record: "the bound of timestamps".into(), what });
    }
    let id_bound = load_number(view, KEY_ID_BOUND, "the bound of ids")?;
    if id_bound > ID_BOUND_MAX {
        let what = format!("{id_bound} is beyond any id that was ever given");
        return Err(Error::Corrupt { record: "the bound of ids".into(), what });
    }
    Ok(Loaded {
        bootstrapped: true,
        timestamp_bound_ms,
        id_bound,
        gc: load_gc(view)?,
        stores: load_all(view, TAG_STORE, "store", store_of)?,
        regions: load_all(view, TAG_REGION, "region", region_of)?,
        keyspaces: load_all(view, TAG_KEYSPACE, "keyspace", keyspace_of)?,
        external_timestamp: match view.get(FAMILY, KEY_EXTERNAL_TIMESTAMP)? {
            Some(value) => decode("the external timestamp", &value, get_u64)?,
            None => 0,
        },
    })
}

fn load_number(view: &dyn View, key: &[u8], record: &str) -> Result<u64> {
    let value =
        view.get(FAMILY, key)?.ok_or_else(|| Error::Corrupt { record: record.into(), what: "it is missing".into() })?;
    decode(record, &value, get_u64)
}

fn load_gc(view: &dyn View) -> Result<GcRecord> {
    let safe_point = load_number(view, KEY_SAFE_POINT, "the safe point")?;
    let gc = match view.get(FAMILY, KEY_GC)? {
        None => GcRecord { safe_point, ..GcRecord::default() },
        Some(value) => decode("the state of garbage collection", &value, |rest| gc_of(safe_point, rest))?,
    };
    // A leader of an earlier version moves the safe point alone.
    Ok(GcRecord { txn_safe_point: gc.txn_safe_point.max(safe_point), ..gc })
}

fn gc_of(safe_point: u64, rest: &mut &[u8]) -> std::result::Result<GcRecord, Truncated> {
    let mut gc = GcRecord { safe_point, txn_safe_point: get_u64(rest)?, ..GcRecord::default() };
    for _ in 0..get_varint(rest)? {
        let name = text(rest)?;
        gc.barriers.insert(name, Barrier { ts: get_u64(rest)?, expires_at_ms: get_u64(rest)? });
    }
    Ok(gc)
}

type Decoder<T> = fn(u64, &mut &[u8]) -> std::result::Result<T, Truncated>;

fn load_all<T>(view: &dyn View, tag: u8, kind: &str, decoder: Decoder<T>) -> Result<Vec<T>> {
    let range = Range { start: Some(Bytes::copy_from_slice(&[tag])), end: Some(Bytes::copy_from_slice(&[tag + 1])) };
    let mut entries = view.entries(FAMILY, range, Direction::Forward)?;
    let mut all = Vec::new();
    while let Some((key, value)) = entries.next().transpose()? {
        let id =
            key.strip_prefix(&[tag]).and_then(|id| <[u8; 8]>::try_from(id).ok()).map(u64::from_be_bytes).ok_or_else(
                || Error::Corrupt { record: format!("a {kind}"), what: format!("its key is {}", key.escape_ascii()) },
            )?;
        all.push(decode(&format!("{kind} {id}"), &value, |rest| decoder(id, rest))?);
    }
    Ok(all)
}

/// Checks the version, decodes the rest and refuses what is left over.
fn decode<T>(
    record: &str,
    value: &[u8],
    decoder: impl FnOnce(&mut &[u8]) -> std::result::Result<T, Truncated>,
) -> Result<T> {
    let corrupt = |what: &str| Error::Corrupt { record: record.into(), what: what.into() };
    let mut rest = value;
    let found = get_u8(&mut rest).map_err(|_| corrupt("it is empty"))?;
    if found != FORMAT {
        return Err(Error::UnsupportedFormat { record: record.into(), found, known: FORMAT });
    }
    let decoded = decoder(&mut rest).map_err(|_| corrupt("it ends early or holds an impossible value"))?;
    if rest.is_empty() { Ok(decoded) } else { Err(corrupt("bytes follow its end")) }
}

fn text(rest: &mut &[u8]) -> std::result::Result<String, Truncated> {
    String::from_utf8(get_slice(rest)?.to_vec()).map_err(|_| Truncated)
}

fn store_of(id: u64, rest: &mut &[u8]) -> std::result::Result<Store, Truncated> {
    Ok(Store { id, address: text(rest)?, status_address: text(rest)?, version: text(rest)? })
}

fn keyspace_of(id: u64, rest: &mut &[u8]) -> std::result::Result<Keyspace, Truncated> {
    let id = u32::try_from(id).map_err(|_| Truncated)?;
    let name = text(rest)?;
    let state = KeyspaceState::try_from(i32::from(get_u8(rest)?)).map_err(|_| Truncated)?;
    let (created_ms, state_changed_ms) = (get_u64(rest)?, get_u64(rest)?);
    let nonce = if rest.is_empty() { 0 } else { get_u64(rest)? };
    Ok(Keyspace { id, name, state: state as i32, created_ms, state_changed_ms, nonce })
}

fn region_of(id: u64, rest: &mut &[u8]) -> std::result::Result<Region, Truncated> {
    let flags = get_u8(rest)?;
    let start_key = Bytes::copy_from_slice(get_slice(rest)?);
    let end_key = Bytes::copy_from_slice(get_slice(rest)?);
    let epoch = Epoch { conf_ver: get_u64(rest)?, version: get_u64(rest)? };
    // The vector grows with the bytes that exist, so a corrupt count cannot make it large.
    let mut peers = Vec::new();
    for _ in 0..get_varint(rest)? {
        let (peer_id, store_id) = (get_u64(rest)?, get_u64(rest)?);
        let role = match get_u8(rest)? {
            0 => PeerRole::Voter,
            1 => PeerRole::Learner,
            _ => return Err(Truncated),
        };
        peers.push(Peer { id: peer_id, store_id, role: role as i32 });
    }
    let system = match flags {
        0 => false,
        1 => true,
        _ => return Err(Truncated),
    };
    Ok(Region { id, start_key, end_key, epoch, peers, system })
}

#[cfg(test)]
#[path = "state_test.rs"]
mod tests;
