//! A table of families, for unit tests.

use crate::Families;
use kontiki_engine::Family;

pub const DEFAULT: Family = Family(0);
pub const TXN_DEFAULT: Family = Family::reserved(0);
pub const TXN_LOCK: Family = Family::reserved(1);
pub const TXN_WRITE: Family = Family::reserved(2);
pub const META: Family = Family::reserved(3);
pub const PLACEMENT: Family = Family::reserved(4);
pub const DATA_FAMILIES: [Family; 4] = [DEFAULT, TXN_DEFAULT, TXN_LOCK, TXN_WRITE];
pub const FAMILIES: Families = Families {
    meta: META,
    system: &[PLACEMENT],
    data: &DATA_FAMILIES,
    later: &[],
    earlier: &[
        (Family(1), TXN_DEFAULT),
        (Family(2), TXN_LOCK),
        (Family(3), TXN_WRITE),
        (Family(4), META),
        (Family(5), PLACEMENT),
    ],
};
