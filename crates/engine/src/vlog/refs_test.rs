use super::*;
use crate::types::ValuePointer;
use proptest::prelude::*;

fn note(refs: &mut ValueRefs, segment: u64, key_bytes: usize, length: u32) {
    let mut stored = Vec::new();
    ValuePointer { segment, offset: 32, length }.encode(&mut stored);
    refs.note(key_bytes, Kind::Pointer, &stored);
}

#[test]
fn only_pointers_count_and_they_count_the_whole_record() {
    let mut refs = ValueRefs::new();
    refs.note(3, Kind::Put, b"value");
    refs.note(3, Kind::Delete, b"");
    assert!(refs.is_empty());
    note(&mut refs, 4, 3, 100);
    let mut stored = 77u64.to_le_bytes().to_vec();
    ValuePointer { segment: 4, offset: 200, length: 1 }.encode(&mut stored);
    refs.note(0, Kind::PointerExpiring, &stored);
    assert_eq!(refs.iter().collect::<Vec<_>>(), [(4, record_stride(3, 100) + record_stride(0, 1))]);
    assert_eq!(refs.total_bytes(), refs.bytes_of(4));
}

#[test]
fn what_was_added_can_be_taken_away() {
    let (mut one, mut other, mut sum) = (ValueRefs::new(), ValueRefs::new(), ValueRefs::new());
    note(&mut one, 1, 1, 1);
    note(&mut one, 2, 1, 1);
    note(&mut other, 2, 1, 1);
    assert!(sum.add(&one).is_some() && sum.add(&other).is_some());
    sum.subtract(&one);
    assert_eq!(sum, other);
    sum.subtract(&other);
    assert!(sum.is_empty());
    let most = ValueRefs { by_segment: BTreeMap::from([(2, u64::MAX)]) };
    assert!(sum.add(&other).is_some() && sum.add(&most).is_none(), "a sum beyond all bounds is refused");
}

proptest! {
    #[test]
    fn the_encoding_survives(segments in proptest::collection::btree_map(any::<u64>(), 1u64.., 0..8)) {
        let refs = ValueRefs { by_segment: segments };
        let mut bytes = Vec::new();
        refs.encode(&mut bytes);
        let mut input = bytes.as_slice();
        prop_assert_eq!(ValueRefs::decode(&mut input), Ok(refs));
        prop_assert!(input.is_empty());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(refs) = ValueRefs::decode(&mut bytes.as_slice()) {
            let mut again = Vec::new();
            refs.encode(&mut again);
            prop_assert_eq!(ValueRefs::decode(&mut again.as_slice()), Ok(refs));
        }
    }
}
