use super::*;
use crate::table::TableMeta;
use crate::version::version_of;
use bytes::Bytes;

#[test]
fn nothing_is_hidden_where_tables_refer_to_nothing() {
    let meta = |number| TableMeta {
        number,
        file_bytes: 100,
        smallest_key: Bytes::from_static(b"a"),
        largest_key: Bytes::from_static(b"b"),
        smallest_sequence: number,
        largest_sequence: number,
        entries: 1,
        tombstones: 0,
        global_sequence: None,
    };
    let version = version_of(vec![(Family(0), 0, meta(2)), (Family(0), 1, meta(1))]);
    assert!(hiding_families(&version, 0).is_empty());
}
