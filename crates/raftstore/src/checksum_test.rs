use super::*;
use crate::model::families::{DEFAULT, FAMILIES, PLACEMENT, TXN_WRITE};
use crate::model::{MapView, put_keys_around, region};
use crate::region::Space;
use kontiki_engine::WriteBatch;

fn sample() -> MapView {
    let mut batch = WriteBatch::new();
    put_keys_around(&mut batch);
    let mut view = MapView::default();
    view.write(&batch);
    view
}

fn checksum(view: &MapView, space: Space, part_bytes: u64) -> u64 {
    let mut checksum = Checksum::new(&FAMILIES, Arc::new(region(space)));
    for _ in 0..100 {
        if let Some(value) = checksum.advance(view, part_bytes).expect("readable") {
            assert!(checksum.bytes() > 0);
            return value;
        }
    }
    panic!("it ends");
}

#[test]
fn it_does_not_depend_on_the_parts_in_which_it_is_computed() {
    let view = sample();
    let whole = checksum(&view, Space::Data, u64::MAX);
    for part_bytes in [1, 7, 20, 30] {
        assert_eq!(checksum(&view, Space::Data, part_bytes), whole, "parts of {part_bytes} bytes");
    }
    assert_ne!(checksum(&view, Space::System, u64::MAX), whole, "each space has its families");
}

#[test]
fn every_key_and_value_of_the_region_counts_and_no_other() {
    let whole = checksum(&sample(), Space::Data, u64::MAX);
    let with = |change: &dyn Fn(&mut WriteBatch)| {
        let (mut view, mut batch) = (sample(), WriteBatch::new());
        change(&mut batch);
        view.write(&batch);
        checksum(&view, Space::Data, u64::MAX)
    };
    assert_ne!(with(&|batch| batch.put(DEFAULT, b"c", b"other")), whole);
    assert_ne!(with(&|batch| batch.delete(TXN_WRITE, b"w")), whole);
    assert_ne!(with(&|batch| batch.put(TXN_WRITE, b"b\0", b"")), whole);
    assert_eq!(with(&|batch| batch.put(DEFAULT, b"x", b"the next region's")), whole);
    assert_eq!(with(&|batch| batch.put(PLACEMENT, b"c", b"of another space")), whole);
    // The same bytes, cut otherwise.
    let moved = |key: &'static [u8], value: &'static [u8]| with(&|batch| batch.put(DEFAULT, key, value));
    assert_ne!(moved(b"cc", b"d"), moved(b"c", b"cd"));
}
