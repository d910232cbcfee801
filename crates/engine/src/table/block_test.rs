use super::super::block_writer::BlockWriter;
use super::*;
use crate::types::SEQUENCE_NUMBER_MAX;
use kontiki_env::rng::Rng;
use std::cmp::Reverse;
use std::collections::BTreeMap;

type Entries = BTreeMap<(Vec<u8>, Reverse<u64>), (Kind, Vec<u8>)>;

fn build(entries: &Entries) -> Vec<u8> {
    let mut writer = BlockWriter::new();
    for ((key, sequence), (kind, stored)) in entries {
        writer.add(KeyRef::new(key, sequence.0), *kind, stored);
    }
    writer.finish().to_vec()
}

/// Entries of one shape: how long keys are, from how many letters, how many versions there are of one.
fn random_entries(rng: &mut Rng) -> Entries {
    let shared = vec![b'p'; [0, 0, 1, 7, 9, 300][rng.below(6) as usize]];
    let (length_max, letters) = ([1, 3, 12, 40][rng.below(4) as usize], [1, 2, 256][rng.below(3) as usize]);
    let sequence_max = [1, 3, 200, SEQUENCE_NUMBER_MAX][rng.below(4) as usize];
    let stored_max = [0, 5, 300][rng.below(3) as usize];
    let mut entries = Entries::new();
    for _ in 0..=rng.below(150) {
        let mut key = shared.clone();
        key.extend((0..rng.below(length_max + 1)).map(|_| rng.below(letters) as u8));
        let kind = Kind::from_byte(rng.below(3) as u8).expect("kinds without pointers");
        let mut stored = vec![rng.below(256) as u8; rng.below(stored_max + 1) as usize];
        match kind {
            Kind::Delete => stored.clear(),
            Kind::PutExpiring => stored.resize(stored.len().max(8), 0),
            _ => {}
        }
        entries.insert((key, Reverse(rng.range(1..sequence_max + 1))), (kind, stored));
    }
    entries
}

#[test]
fn random_blocks_are_read_back_and_searched_like_a_list() {
    let mut rng = Rng::new(1);
    for _ in 0..400 {
        let entries = random_entries(&mut rng);
        let block = Block::new(build(&entries).into()).expect("well made");
        assert_eq!(block.len(), entries.len());
        for (at, ((key, sequence), (kind, stored))) in entries.iter().enumerate() {
            assert_eq!([block.shared_prefix(), block.suffix(at)].concat(), *key);
            assert_eq!(block.version(at), (sequence.0, *kind));
            assert_eq!((block.stored(at), &block.stored_bytes(at)[..]), (&stored[..], &stored[..]));
            assert!(block.has_user_key(at, key) && !block.has_user_key(at, &[key.as_slice(), b"x"].concat()));
        }
        let mut targets: Vec<(Vec<u8>, u64)> = vec![(Vec::new(), 1), (vec![0xff; 400], 1), (b"p".to_vec(), 2)];
        for (key, sequence) in entries.keys() {
            targets
                .extend([0, sequence.0, sequence.0 + 1, SEQUENCE_NUMBER_MAX].map(|sequence| (key.clone(), sequence)));
            targets.extend([&[0][..], &[0xff; 9]].map(|more| ([key.as_slice(), more].concat(), 1)));
            targets.extend(key.split_last().map(|(_, shorter)| (shorter.to_vec(), 1)));
        }
        for (key, sequence) in &targets {
            let target = KeyRef::new(key, *sequence);
            let before = entries.keys().filter(|(key, sequence)| KeyRef::new(key, sequence.0) < target).count();
            assert_eq!(block.position(target), before, "{target:?} in {:?}", entries.keys());
            for (at, (key, sequence)) in entries.keys().enumerate().take(5) {
                assert_eq!(block.cmp_entry(at, target), KeyRef::new(key, sequence.0).cmp(&target));
            }
        }
    }
}

#[test]
fn a_changed_block_is_refused_or_still_in_order() {
    let mut rng = Rng::new(2);
    let (mut refused, mut passed) = (0, 0);
    for _ in 0..300 {
        let mut bytes = build(&random_entries(&mut rng));
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.below(256) as u8;
        }
        bytes.truncate(bytes.len() - if rng.chance(1, 5) { rng.below(9) as usize } else { 0 }.min(bytes.len()));
        let Ok(block) = Block::new(bytes.into()) else {
            refused += 1;
            continue;
        };
        passed += 1;
        let position = |at| (block.suffix(at).to_vec(), Reverse(block.sequence(at)));
        assert!((1..block.len()).all(|at| position(at - 1) < position(at)));
        for at in 0..block.len() {
            let (sequence, kind) = block.version(at);
            assert!(sequence <= SEQUENCE_NUMBER_MAX && Decoded::new(kind, block.stored(at)).is_ok());
        }
    }
    assert!(refused > 50 && passed > 50, "{refused} refused, {passed} passed");
}

#[test]
fn swapped_keys_are_refused() {
    let entries: Entries =
        [b"ka".to_vec(), b"kb".to_vec()].map(|key| ((key, Reverse(1)), (Kind::Put, Vec::new()))).into();
    let mut bytes = build(&entries);
    let at = bytes.len() - 2;
    assert_eq!(&bytes[at..], b"ab");
    assert!(Block::new(bytes.clone().into()).is_ok());
    bytes[at..].copy_from_slice(b"ba");
    assert_eq!(Block::new(bytes.clone().into()).expect_err("refused"), "the block's keys are not in order");
    bytes[at..].copy_from_slice(b"aa");
    assert_eq!(Block::new(bytes.into()).expect_err("refused"), "the block's keys are not in order");
}

#[test]
fn heads_compare_like_keys_unless_they_are_equal() {
    let keys: [&[u8]; 8] = [b"", b"\0", b"\0\0", b"a", b"a\0", b"ab", b"abcdefgh", b"abcdefghi"];
    for (at, low) in keys.iter().enumerate() {
        for high in &keys[at..] {
            assert!(head_of(low) <= head_of(high), "{low:?} {high:?}");
        }
    }
    let heads: Vec<u64> = (0..200).map(|i| i / 3 * 2).collect();
    for head in 0..140 {
        for length in [0, 1, 31, 32, 33, 64, 200] {
            let heads = &heads[..length];
            assert_eq!(count_below(heads, head), heads.partition_point(|candidate| *candidate < head));
        }
    }
}
