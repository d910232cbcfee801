use super::*;
use crate::test_view::MapView;

fn store(id: u64) -> Store {
    Store { id, address: format!("10.0.0.{id}:20160"), status_address: String::new(), version: "8.5.0".into() }
}

fn region(id: u64, start: &'static [u8], end: &'static [u8], system: bool) -> Region {
    let peer = |store_id, role: PeerRole| Peer { id: id * 1000 + store_id, store_id, role: role as i32 };
    Region {
        id,
        start_key: Bytes::from_static(start),
        end_key: Bytes::from_static(end),
        epoch: Epoch { conf_ver: 1, version: 2 },
        peers: vec![peer(1, PeerRole::Voter), peer(2, PeerRole::Learner)],
        system,
    }
}

fn written() -> MapView {
    let mut view = MapView::default();
    let regions = [region(1, b"", b"", true), region(2, b"", b"m", false), region(300, b"m", b"", false)];
    view.apply(&bootstrap(&[store(1), store(256)], &regions));
    view
}

#[test]
fn what_the_bootstrap_writes_is_loaded() {
    let loaded = load(&written()).unwrap();
    assert!(loaded.bootstrapped);
    assert_eq!((loaded.timestamp_bound_ms, loaded.id_bound, loaded.gc.safe_point), (0, FIRST_ID, 0));
    assert_eq!(loaded.stores, [store(1), store(256)]);
    let expected = [region(1, b"", b"", true), region(2, b"", b"m", false), region(300, b"m", b"", false)];
    assert_eq!(loaded.regions, expected);
}

#[test]
fn an_empty_family_is_not_bootstrapped() {
    assert!(!load(&MapView::default()).unwrap().bootstrapped);
}

/// Golden bytes: the format of version 1 must stay readable.
#[test]
fn the_layout_is_as_documented() {
    let view = written();
    assert_eq!(view.0[&vec![1]].as_ref(), [1]);
    assert_eq!(view.0[&vec![3]].as_ref(), [1, 0xa0, 0x86, 1, 0, 0, 0, 0, 0]);
    let mut expected = vec![1, 14];
    expected.extend_from_slice(b"10.0.0.1:20160");
    expected.extend_from_slice(&[0, 5]);
    expected.extend_from_slice(b"8.5.0");
    assert_eq!(view.0[&vec![5, 0, 0, 0, 0, 0, 0, 0, 1]].as_ref(), expected);
    let mut expected = vec![1, 0, 0, 1, b'm'];
    expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2]);
    expected.extend_from_slice(&[0xd1, 7, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[0xd2, 7, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(view.0[&vec![6, 0, 0, 0, 0, 0, 0, 0, 2]].as_ref(), expected);
}

#[test]
fn every_cut_of_every_record_is_refused_or_missing() {
    let whole = written();
    for (key, value) in &whole.0 {
        for length in 0..value.len() {
            let mut cut = whole.clone();
            cut.0.insert(key.clone(), value.slice(..length));
            assert!(matches!(load(&cut), Err(Error::Corrupt { .. })), "key {key:?} cut to {length} bytes");
        }
        let mut longer = whole.clone();
        longer.0.insert(key.clone(), [value.as_ref(), &[0]].concat().into());
        assert!(matches!(load(&longer), Err(Error::Corrupt { .. })), "key {key:?} with a byte too many");
    }
}

#[test]
fn a_newer_format_names_the_remedy() {
    let mut view = written();
    view.0.insert(vec![2], Bytes::from_static(&[2, 0, 0, 0, 0, 0, 0, 0, 0]));
    let error = load(&view).unwrap_err();
    assert!(matches!(error, Error::UnsupportedFormat { found: 2, known: 1, .. }));
    assert!(error.to_string().contains("upgrade this node"), "{error}");
}

#[test]
fn a_missing_or_impossible_bound_is_corruption_not_zero() {
    for key in [[2], [3], [4]] {
        let mut view = written();
        view.0.remove(key.as_slice());
        assert!(matches!(load(&view), Err(Error::Corrupt { .. })), "record {key:?}");
    }
    for key in [[2], [3]] {
        let mut view = written();
        view.0.insert(key.to_vec(), Bytes::from_static(&[1, 255, 255, 255, 255, 255, 255, 255, 255]));
        assert!(matches!(load(&view), Err(Error::Corrupt { .. })), "record {key:?}");
    }
}

#[test]
fn a_key_of_a_wrong_width_is_corruption() {
    let mut view = written();
    view.0.insert(vec![5, 0, 1], Bytes::from_static(&[1, 0, 0, 0]));
    assert!(matches!(load(&view), Err(Error::Corrupt { .. })));
}

/// A leader of an earlier version writes the safe point alone.
#[test]
fn a_safe_point_that_was_moved_alone_moves_that_of_transactions() {
    let mut view = written();
    let mut batch = WriteBatch::new();
    put_gc(&mut batch, &GcRecord { safe_point: 5, txn_safe_point: 7, ..GcRecord::default() });
    view.apply(&batch);
    let mut batch = WriteBatch::new();
    put_number(&mut batch, KEY_SAFE_POINT, 9);
    view.apply(&batch);
    let gc = load(&view).unwrap().gc;
    assert_eq!((gc.safe_point, gc.txn_safe_point), (9, 9));
}
