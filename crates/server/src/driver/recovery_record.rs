//! What a directory, and a hello, says of an unsafe recovery: docs/internals/unsafe-recovery.md.
//!
//! | key in `meta` | value |
//! |---|---|
//! | `06` | the number of the recovery and the lost stores (`kontiki_raftstore::meta`) |
//! | `13` | what placement begins at after it: version (1 byte, 1), timestamps in milliseconds (8 bytes LE), ids (8 bytes LE) |

use crate::families;
use kontiki_engine::{View, WriteBatch};
use kontiki_env::codec::{get_u64, put_u64};
use kontiki_raftstore::{RecoverError, Recovery, RegionId, StoreId, meta};
use prost::Message;

const KEY_MINIMUMS: &[u8] = &[0x13];
/// Version of the value's format.
const FORMAT: u8 = 1;

/// The last unsafe recovery; all zero if there was none.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct RecoveryRecord {
    /// Counts the recoveries of the cluster.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The lost stores, ascending.
    #[prost(uint64, repeated, tag = "2")]
    pub lost: Vec<u64>,
    /// No timestamp of an earlier leader of placement was as high: in milliseconds.
    #[prost(uint64, tag = "3")]
    pub timestamp_min_ms: u64,
    /// No id of an earlier leader of placement was as high.
    #[prost(uint64, tag = "4")]
    pub id_min: u64,
    /// Regions that go on from one learner, ascending, and the store of each.
    #[prost(uint64, repeated, tag = "5")]
    pub learner_regions: Vec<u64>,
    #[prost(uint64, repeated, tag = "6")]
    pub learner_stores: Vec<u64>,
}

impl RecoveryRecord {
    /// Whether two directories say the same of lost stores. Each may have minimums of its own.
    pub fn agrees(&self, other: &RecoveryRecord) -> bool {
        let learners = (&self.learner_regions, &self.learner_stores);
        (self.number, &self.lost, learners)
            == (other.number, &other.lost, (&other.learner_regions, &other.learner_stores))
    }

    pub fn recovery(&self) -> Recovery {
        let learners = self.learner_regions.iter().copied().map(RegionId);
        let learners = learners.zip(self.learner_stores.iter().copied().map(StoreId)).collect();
        Recovery { number: self.number, lost: self.lost.iter().copied().map(StoreId).collect(), learners }
    }

    /// Without minimums.
    pub fn of(recovery: &Recovery) -> RecoveryRecord {
        RecoveryRecord {
            number: recovery.number,
            lost: recovery.lost.iter().map(|store| store.0).collect(),
            learner_regions: recovery.learners.keys().map(|region| region.0).collect(),
            learner_stores: recovery.learners.values().map(|store| store.0).collect(),
            ..RecoveryRecord::default()
        }
    }

    /// Reads that of a directory.
    pub fn load(view: &dyn View) -> Result<RecoveryRecord, RecoverError> {
        let recovery = meta::recovery(families::META, view)?;
        let minimums = view.get(families::META, KEY_MINIMUMS)?;
        let (timestamp_min_ms, id_min) = minimums.map_or(Ok((0, 0)), |value| decode_minimums(&value))?;
        Ok(RecoveryRecord { timestamp_min_ms, id_min, ..RecoveryRecord::of(&recovery) })
    }

    /// Adds it to a directory's next write.
    pub fn put(&self, batch: &mut WriteBatch) {
        meta::put_recovery(families::META, batch, &self.recovery());
        let mut value = vec![FORMAT];
        put_u64(&mut value, self.timestamp_min_ms);
        put_u64(&mut value, self.id_min);
        batch.put(families::META, KEY_MINIMUMS, &value);
    }
}

fn decode_minimums(value: &[u8]) -> Result<(u64, u64), RecoverError> {
    let malformed = || RecoverError::Damaged("the record of what placement begins at is malformed".into());
    let (format, mut rest) = value.split_first().ok_or_else(malformed)?;
    match (*format, get_u64(&mut rest), get_u64(&mut rest)) {
        (FORMAT, Ok(timestamp_ms), Ok(id)) if rest.is_empty() => Ok((timestamp_ms, id)),
        _ => Err(malformed()),
    }
}
