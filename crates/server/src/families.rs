//! The column families of a served directory: the layer that owns each, and the table that raftstore gets.

use kontiki_engine::{Family, FamilySpec};
pub use kontiki_placement::FAMILY as PLACEMENT;
use kontiki_raftlog::Place;
use kontiki_raftstore::Families;
pub use kontiki_txn::{TXN_DEFAULT, TXN_LOCK, TXN_WRITE};

/// Embedded data, which is the raw data of a served store: the user key as it is.
pub const DEFAULT: Family = Family(0);
/// What raftstore and the driver keep about the directory.
pub const META: Family = Family::reserved(3);

/// Raw data of API version 1 in the column family `lock`: keys as they are. It has nothing to do with [`TXN_LOCK`].
pub const RAW_LOCK: Family = Family::reserved(5);
/// The same in the column family `write`.
pub const RAW_WRITE: Family = Family::reserved(6);
/// Raw data of API version 2: memcomparable keys, because region boundaries of that version are encoded.
pub const RAW_V2: Family = Family::reserved(7);

/// The families in which a data region owns its key range, ascending.
pub const DATA_FAMILIES: [Family; 7] = [DEFAULT, TXN_DEFAULT, TXN_LOCK, TXN_WRITE, RAW_LOCK, RAW_WRITE, RAW_V2];
/// Those of them that earlier releases do not have.
pub const LATER: [Family; 3] = [RAW_LOCK, RAW_WRITE, RAW_V2];

/// The numbers that these families had before the present numbers were reserved: in directories, log entries and
/// snapshot files of earlier versions.
pub const EARLIER: [(Family, Family); 5] = [
    (Family(1), TXN_DEFAULT),
    (Family(2), TXN_LOCK),
    (Family(3), TXN_WRITE),
    (Family(4), META),
    (Family(5), PLACEMENT),
];

/// What raftstore has to know of them.
pub const FAMILIES: Families =
    Families { meta: META, system: &[PLACEMENT], data: &DATA_FAMILIES, later: &LATER, earlier: &EARLIER };

/// Where `meta` records where raft logs are kept, and operations on their files that are to be done.
pub const LOG_PLACE: Place = Place { family: META, choice_key: &[0x14], intent_key: &[0x15] };

/// Their numbers and names.
pub fn served_families() -> Vec<FamilySpec> {
    let names = [
        (DEFAULT, "default"),
        (TXN_DEFAULT, "kontiki.txn_default"),
        (TXN_LOCK, "kontiki.txn_lock"),
        (TXN_WRITE, "kontiki.txn_write"),
        (META, "kontiki.meta"),
        (PLACEMENT, "kontiki.placement"),
        (RAW_LOCK, "kontiki.raw_lock"),
        (RAW_WRITE, "kontiki.raw_write"),
        (RAW_V2, "kontiki.raw_v2"),
    ];
    names.map(|(family, name)| FamilySpec::new(family, name)).to_vec()
}
