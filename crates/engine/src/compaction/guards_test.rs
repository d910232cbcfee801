use super::*;

fn tables(sizes: &[u64]) -> Vec<TableMeta> {
    let meta = |(at, bytes): (usize, &u64)| TableMeta {
        number: at as u64 + 1,
        file_bytes: *bytes,
        smallest_key: Bytes::from(vec![at as u8, 0]),
        largest_key: Bytes::from(vec![at as u8, 9]),
        smallest_sequence: 1,
        largest_sequence: 1,
        entries: 1,
        tombstones: 0,
        global_sequence: None,
    };
    sizes.iter().enumerate().map(meta).collect()
}

fn cuts(sizes: &[u64], parts: usize) -> Vec<u8> {
    let tables = tables(sizes);
    even_guards(&tables.iter().collect::<Vec<_>>(), parts).iter().map(|guard| guard[0]).collect()
}

#[test]
fn guards_part_the_bytes_evenly() {
    assert_eq!(cuts(&[1; 8], 4), [2, 4, 6]);
    assert_eq!(cuts(&[1; 8], 1), [0u8; 0]);
    assert_eq!(cuts(&[], 4), [0u8; 0]);
    assert_eq!(cuts(&[5], 4), [0u8; 0]);
    assert_eq!(cuts(&[6, 1, 1], 2), [1]);
    assert_eq!(cuts(&[1, 1], 4), [1]);
}

#[test]
fn guards_stay_until_a_part_is_twice_its_share() {
    let guards = [Bytes::from_static(&[2]), Bytes::from_static(&[4])];
    let uneven = |sizes: &[u64]| {
        let tables = tables(sizes);
        is_uneven(&tables.iter().collect::<Vec<_>>(), &guards)
    };
    assert!(!uneven(&[1, 1, 1, 1, 1, 1]));
    assert!(!uneven(&[1, 1, 1, 1, 2, 2]));
    assert!(uneven(&[1, 1, 1, 1, 12, 2]));
    assert!(!uneven(&[]));
}
