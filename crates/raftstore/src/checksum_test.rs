use super::*;
use crate::model::families::{DEFAULT, FAMILIES, PLACEMENT, TXN_WRITE};
use crate::model::{MapView, put_keys_around, region};
use crate::region::Space;
use kontiki_engine::{Entries, Family, WriteBatch};

fn sample() -> MapView {
    let mut batch = WriteBatch::new();
    put_keys_around(&mut batch);
    let mut view = MapView::default();
    view.write(&batch);
    view
}

fn checksum(view: &MapView, space: Space, part_bytes: u64) -> u64 {
    let mut checksum = Checksum::new(&FAMILIES, Arc::new(region(space)), 1_000);
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

/// A view whose keys that begin with "c" expire at the time that their value says, as that of a replica does which is
/// read at `now_ms`.
struct Expiring {
    view: MapView,
    now_ms: u64,
}

struct ExpiringEntries {
    entries: Box<dyn Entries>,
    now_ms: u64,
    expires_at_ms: Option<u64>,
}

impl View for Expiring {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.view.get(family, key)
    }

    fn entries(&self, family: Family, range: Range, direction: Direction) -> Result<Box<dyn Entries>, Error> {
        let entries = self.view.entries(family, range, direction)?;
        Ok(Box::new(ExpiringEntries { entries, now_ms: self.now_ms, expires_at_ms: None }))
    }
}

impl Iterator for ExpiringEntries {
    type Item = Result<(Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Ok((key, value)) = self.entries.next()? else { panic!("readable") };
            self.expires_at_ms = key.starts_with(b"c").then(|| value.iter().map(|byte| u64::from(*byte)).sum());
            if self.expires_at_ms.is_none_or(|at| self.now_ms < at) {
                return Some(Ok((key, value)));
            }
        }
    }
}

impl Entries for ExpiringEntries {
    fn seek(&mut self, key: &[u8]) -> Result<(), Error> {
        self.entries.seek(key)
    }

    fn expires_at_ms(&self) -> Option<u64> {
        self.expires_at_ms
    }
}

#[test]
fn keys_that_expire_before_the_agreed_time_count_on_no_replica() {
    let with = |keys: &[(&str, u8)], now_ms: u64, expires_after_ms: u64| {
        let mut batch = WriteBatch::new();
        batch.put(DEFAULT, b"d", b"stays");
        keys.iter().for_each(|(key, at)| batch.put(DEFAULT, key, [*at]));
        let mut view = Expiring { view: MapView::default(), now_ms };
        view.view.write(&batch);
        Checksum::new(&FAMILIES, Arc::new(region(Space::Data)), expires_after_ms).advance(&view, u64::MAX)
    };
    let of = |keys: &[(&str, u8)], now_ms| with(keys, now_ms, 50).expect("readable").expect("whole");
    // Two replicas, one of which reads later: the first key has expired there.
    assert_eq!(of(&[("c1", 20), ("c2", 90)], 10), of(&[("c1", 20), ("c2", 90)], 30));
    assert_ne!(of(&[("c1", 20), ("c2", 90)], 10), of(&[("c1", 20)], 10), "a lost key that lives on");
    assert_ne!(of(&[("c2", 90)], 10), of(&[("c2", 91)], 10), "another expiry");
    // An earlier release asks for all keys, because it knows none that expire.
    assert!(with(&[("c1", 20)], 10, 0).is_err());
    assert!(with(&[], 10, 0).is_ok());
}
