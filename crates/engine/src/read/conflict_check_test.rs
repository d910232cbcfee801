use crate::compaction::harness::{FAMILIES, Layer, Sizes, random_batch, random_key, random_range};
use crate::{Family, WriteBatch};
use kontiki_env::rng::Rng;

#[test]
fn what_was_written_since_a_moment_is_what_the_model_says() {
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let mut layer = Layer::new(seed, if rng.chance(1, 2) { Sizes::tiny() } else { Sizes::medium() });
        // Since then every tombstone is kept.
        let mut compacted_at = 0;
        for _ in 0..150 {
            match rng.below(20) {
                0 => layer.flush().expect("a healthy disk"),
                1 => {
                    layer.flush().expect("a healthy disk");
                    while layer.compact_step().expect("a healthy disk") {}
                    compacted_at = layer.sequence;
                }
                _ => layer.write(&random_batch(&mut rng)),
            }
            let state = layer.read_state();
            let family = Family(rng.below(u64::from(FAMILIES)) as u32);
            let after = compacted_at + rng.below(layer.sequence - compacted_at + 1);
            let newest = |key: &[u8]| {
                let versions = layer.model.get(&(family, key.to_vec()))?;
                versions.last_key_value().map(|(sequence, _)| *sequence).filter(|&sequence| sequence > after)
            };
            let key = random_key(&mut rng);
            let found = state.newest_sequence(family, &key, after).expect("a healthy disk");
            assert_eq!(found, newest(&key), "seed {seed}, {key:?} above {after}");
            let range = random_range(&mut rng);
            let keys = layer.model.keys().filter(|(of, key)| *of == family && range.contains(key));
            let expected: Vec<_> = keys.filter(|(_, key)| newest(key).is_some()).map(|(_, key)| key).collect();
            match state.written_since(family, &range, after).expect("a healthy disk") {
                Some(key) => {
                    assert!(expected.contains(&&key.to_vec()), "seed {seed}, {range:?}: {key:?} above {after}")
                }
                None => assert_eq!(expected, Vec::<&Vec<u8>>::new(), "seed {seed}, {range:?} above {after}"),
            }
        }
    }
}

#[test]
fn a_deleted_range_counts_as_written() {
    let mut layer = Layer::new(1, Sizes::tiny());
    layer.put(b"b", b"old");
    layer.flush().expect("a healthy disk");
    let mut batch = WriteBatch::new();
    batch.delete_range(Family(0), b"b"..b"d");
    layer.sequence += 1;
    layer.memtable.apply(&batch, layer.sequence);
    let state = layer.read_state();
    let newest = |key: &[u8], after| state.newest_sequence(Family(0), key, after).expect("a healthy disk");
    assert_eq!((newest(b"b", 0), newest(b"b", 1), newest(b"b", 2)), (Some(2), Some(2), None));
    assert_eq!((newest(b"c", 0), newest(b"d", 0), newest(b"a", 0)), (Some(2), None, None));
    let since = |start: &[u8], end: &[u8], since| {
        let found = state.written_since(Family(0), &crate::Range::region(start, end), since);
        found.expect("a healthy disk").map(|key| key.to_vec())
    };
    assert_eq!(since(b"", b"", 1), Some(b"b".to_vec()));
    assert_eq!(since(b"c", b"", 1), Some(b"c".to_vec()), "the part within the range");
    assert_eq!((since(b"", b"b", 1), since(b"d", b"", 1), since(b"", b"", 2)), (None, None, None));
    assert_eq!(since(b"", b"c", 0), Some(b"b".to_vec()));
    assert!(state.newest_sequence(Family(99), b"b", 0).is_err(), "an unknown family");
}
