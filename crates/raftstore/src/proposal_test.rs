use super::*;
use crate::families;
use crate::region::{Peer, PeerId, RegionId, Space, StoreId};
use kontiki_engine::{BatchOp, Family};
use proptest::prelude::*;

fn region() -> Region {
    Region {
        id: RegionId(2),
        start_key: Bytes::from_static(b"b"),
        end_key: Bytes::from_static(b"d"),
        epoch: Epoch { conf_version: 1, version: 3 },
        peers: vec![Peer { id: PeerId(1), store: StoreId(1) }],
        space: Space::Data,
    }
}

fn batch(family: Family, key: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(family, key, b"v");
    batch
}

fn refused(epoch: Epoch, batch: &WriteBatch) -> bool {
    let decision = decide_write(&region(), &encode_header(epoch), batch.as_bytes()).expect("understood");
    matches!(decision, ApplyDecision::Refuse(RegionError::EpochNotMatch { .. }))
}

#[test]
fn a_proposal_is_checked_again_at_apply() {
    let epoch = region().epoch;
    assert!(!refused(epoch, &batch(families::TXN_LOCK, b"c")));
    assert!(!refused(Epoch { conf_version: 9, ..epoch }, &batch(families::DEFAULT, b"b")), "membership moves no key");
    assert!(refused(Epoch { version: 2, ..epoch }, &batch(families::DEFAULT, b"c")), "an old range");
    assert!(refused(epoch, &batch(families::DEFAULT, b"d")), "the end is exclusive");
    assert!(refused(epoch, &batch(families::META, b"c")), "not the region's family");
    assert!(refused(epoch, &batch(families::PLACEMENT, b"c")), "not the region's family");
}

#[test]
fn an_unknown_format_is_not_taken_for_something_else() {
    let mut header = encode_header(region().epoch).to_vec();
    header[0] = 3;
    assert!(decide_write(&region(), &header, &[]).is_err());
    assert!(decide_write(&region(), &[], &[]).is_err());
    assert!(decide_write(&region(), &encode_header(region().epoch), &[7]).is_err());
}

/// Entries that a log still holds from the time before the families had reserved numbers.
#[test]
fn a_proposal_of_the_earlier_format_writes_to_the_families_it_meant() {
    let mut header = encode_header(region().epoch).to_vec();
    header[0] = 1;
    let mut earlier = WriteBatch::new();
    earlier.put(families::DEFAULT, b"b", b"raw");
    earlier.put_expiring(Family(1), b"b", b"1", 9);
    earlier.delete(Family(2), b"c");
    earlier.delete_range(Family(3), b"b"..b"d");
    let Ok(ApplyDecision::Write(batch)) = decide_write(&region(), &header, earlier.as_bytes()) else {
        panic!("it is written")
    };
    let found: Vec<_> = batch.ops().map(|op| op.family()).collect();
    assert_eq!(found, families::DATA_FAMILIES);
    let BatchOp::PutExpiring { value: b"1", expires_at_ms: 9, .. } = batch.ops().nth(1).expect("there") else {
        panic!("nothing else changes")
    };
    let today = encode_header(region().epoch);
    assert!(
        matches!(decide_write(&region(), &today, earlier.as_bytes()), Ok(ApplyDecision::Refuse(_))),
        "a user's families today"
    );
}

proptest! {
    #[test]
    fn deciding_about_any_bytes_never_panics(header in prop::collection::vec(any::<u8>(), 0..24), data in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = decide_write(&region(), &header, &data);
    }
}
