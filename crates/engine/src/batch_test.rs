use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_batch_survives_its_encoding(ops in prop::collection::vec((any::<bool>(), 0u32..5, prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..40)), 0..20)) {
        let mut batch = WriteBatch::new();
        for (put, family, key, value) in &ops {
            if *put { batch.put(Family(*family), key, value) } else { batch.delete(Family(*family), key) }
        }
        let decoded = WriteBatch::decode(batch.as_bytes()).expect("whole");
        prop_assert_eq!(&decoded, &batch);
        prop_assert_eq!(decoded.ops().count(), ops.len());
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
    batch.put(Family::DEFAULT, &vec![0; KEY_BYTES_MAX], &[]);
    assert!(batch.validate().is_ok());
    batch.delete(Family::DEFAULT, &vec![0; KEY_BYTES_MAX + 1]);
    let error = batch.validate().expect_err("too long").to_string();
    assert!(error.contains("65537") && error.contains("65536"), "{error}");
}
