use super::*;
use kontiki_engine::{Family, WriteBatch};
use kontiki_raftstore::{ApplyId, ApplyPart};

const REGION: RegionId = RegionId(2);
const OTHER: RegionId = RegionId(3);

fn sizes(bytes_max: u64) -> RegionSizes {
    let mut sizes = RegionSizes::new(SizeLimits { bytes_max, keys_max: 0 }, Duration::ZERO);
    sizes.leads(REGION);
    sizes.leads(PLACEMENT_REGION);
    sizes
}

/// A batch of which three operations of four are the region's, and one another region's.
fn apply(value_bytes: usize) -> Apply {
    let mut batch = WriteBatch::new();
    for number in 0..4u8 {
        batch.put(Family::DEFAULT, [number], vec![0; value_bytes]);
    }
    let part = |region, operations| ApplyPart { region, index: 7, term: 1, commands: Vec::new(), operations };
    Apply { id: ApplyId(1), batch, parts: vec![part(REGION, 0..3), part(OTHER, 3..4)] }
}

fn known(sizes: &mut RegionSizes, is_too_large: bool) {
    let size = Some(RegionSize { bytes: 5, keys: 1 });
    sizes.regions.insert(REGION, Known { size, is_too_large, ..Known::default() });
}

#[test]
fn a_region_is_due_when_it_is_led_and_when_its_range_changed_and_never_the_placement_group() {
    let mut sizes = sizes(160_000);
    assert_eq!(sizes.due(), [REGION]);
    known(&mut sizes, false);
    assert!(sizes.due().is_empty());
    assert_eq!(sizes.size(REGION), RegionSize { bytes: 5, keys: 1 });
    sizes.range_changed(REGION);
    assert_eq!(sizes.due(), [REGION]);
    assert_eq!(sizes.size(REGION), RegionSize::default(), "what it was is no longer true");
    sizes.leads_no_more(REGION);
    sizes.range_changed(REGION);
    assert!(sizes.due().is_empty());
}

fn flush(sizes: &mut RegionSizes) {
    sizes.flushed([REGION, OTHER].into_iter());
}

#[test]
fn a_region_is_due_when_a_share_of_the_limit_was_flushed() {
    let mut sizes = sizes(160_000);
    known(&mut sizes, false);
    sizes.count(&apply(3_000));
    flush(&mut sizes);
    assert!(sizes.due().is_empty(), "9,000 of 10,000 bytes");
    sizes.count(&apply(400));
    assert!(sizes.due().is_empty(), "only tables are measured");
    flush(&mut sizes);
    assert_eq!(sizes.due(), [REGION]);
    flush(&mut sizes);
    assert!(sizes.due().is_empty(), "counted from the flush on");
    assert!(!sizes.regions.contains_key(&OTHER), "it is not led here");
}

#[test]
fn a_region_is_due_when_it_got_many_keys() {
    let mut sizes = RegionSizes::new(SizeLimits { bytes_max: 1 << 30, keys_max: 100 }, Duration::ZERO);
    sizes.leads(REGION);
    known(&mut sizes, false);
    sizes.count(&apply(1));
    flush(&mut sizes);
    assert!(sizes.due().is_empty(), "3 of 6");
    sizes.count(&apply(1));
    flush(&mut sizes);
    assert_eq!(sizes.due(), [REGION]);
}

#[test]
fn a_region_that_is_too_large_stays_due() {
    let mut sizes = sizes(160_000);
    known(&mut sizes, true);
    assert_eq!(sizes.due(), [REGION]);
    assert_eq!(sizes.due(), [REGION]);
}
