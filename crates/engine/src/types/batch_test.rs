use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_batch_survives_its_encoding(
        ops in prop::collection::vec((0u8..4, 0u32..5, prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..40)), 0..20)
    ) {
        let mut batch = WriteBatch::new();
        let mut expected = Vec::new();
        for (which, family, key, value) in &ops {
            let family = Family(*family);
            match which {
                0 => batch.put(family, key, value),
                1 => batch.put_expiring(family, key, value, 77),
                2 => batch.delete(family, key),
                _ => batch.delete_range(family, key..value),
            }
            expected.push(match which {
                0 => BatchOp::Put { family, key, value },
                1 => BatchOp::PutExpiring { family, key, value, expires_at_ms: 77 },
                2 => BatchOp::Delete { family, key },
                _ => BatchOp::DeleteRange { family, start: key, end: value },
            });
        }
        let decoded = WriteBatch::decode(batch.as_bytes()).expect("whole");
        prop_assert_eq!(&decoded, &batch);
        prop_assert_eq!(decoded.ops().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn decoding_anything_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(batch) = WriteBatch::decode(&bytes) {
            prop_assert_eq!(batch.ops().count(), batch.len());
        }
    }
}

#[test]
fn sizes_beyond_the_limits_are_named() {
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, vec![0; KEY_BYTES_MAX], []);
    assert!(batch.validate().is_ok());
    batch.delete(Family::DEFAULT, vec![0; KEY_BYTES_MAX + 1]);
    let error = batch.validate().expect_err("too long").to_string();
    assert!(error.contains("65537") && error.contains("65536"), "{error}");
}

#[test]
fn a_delete_to_the_end_of_a_family_is_short_and_lasts_through_every_form() {
    let mut batch = WriteBatch::new();
    batch.delete_range(Family(7), b"b"..);
    assert!(batch.validate().is_ok() && batch.as_bytes().len() < 8, "{batch:?}");
    let expected = BatchOp::DeleteRange { family: Family(7), start: b"b", end: b"" };
    let decoded = WriteBatch::decode(batch.as_bytes()).expect("whole");
    assert_eq!((decoded.ops().collect::<Vec<_>>(), decoded.len()), (vec![expected], 1));
    // As the engine's own parts hand it on.
    let mut copy = WriteBatch::new();
    for entry in batch.entries() {
        let BatchEntry::DeleteRange { family, start, end } = entry else { panic!("{entry:?}") };
        assert!(end > &[u8::MAX; KEY_BYTES_MAX][..], "behind every key");
        copy.delete_range(family, start..end);
    }
    assert_eq!(copy, batch);
    let too_long = vec![u8::MAX; KEY_BYTES_MAX + 2];
    copy.delete_range(Family(7), b"b".as_slice()..&too_long);
    assert!(copy.validate().is_err(), "what is no key is no end");
}

/// Byte for byte as an earlier build wrote it, when an empty end meant that there are no keys.
#[test]
fn a_range_delete_that_meant_nothing_to_an_earlier_build_means_nothing_now() {
    let batch = WriteBatch::decode(&[16, 7, 0, 0, 0, 7, 1, b'k']).expect("whole");
    assert_eq!(batch.ops().collect::<Vec<_>>(), [BatchOp::Delete { family: Family(7), key: b"k" }]);
    assert_eq!(batch.len(), 1);
    let memtable = crate::memtable::Memtable::new();
    memtable.apply(&batch, 9);
    assert_eq!(memtable.covering_sequence(Family(7), b"a", 9), None);
}

#[test]
fn value_pointers_come_from_this_database_only() {
    let mut batch = WriteBatch::new();
    batch.put_stored(Family::DEFAULT, b"k", Kind::Pointer, &[7; 20]);
    assert!(WriteBatch::decode(batch.as_bytes()).is_err(), "a foreign batch refers to nothing here");
    assert_eq!(WriteBatch::decode_logged(batch.as_bytes()).expect("whole"), batch);
    batch.put_stored(Family::DEFAULT, b"k", Kind::Pointer, &[7; 19]);
    assert!(WriteBatch::decode_logged(batch.as_bytes()).is_err(), "a pointer has 20 bytes");
}
