use crate::kv::fake::{FakeNode, LEFT, SPLIT, context};
use bytes::Bytes;
use kontiki_proto::kvrpcpb::{self, SplitRegionRequest};
use kontiki_txn::memcomparable_encode;

fn request(keys: &[&[u8]], is_raw_kv: bool) -> SplitRegionRequest {
    let split_keys = keys.iter().map(|key| Bytes::copy_from_slice(key)).collect();
    SplitRegionRequest { context: context(LEFT), split_keys, is_raw_kv, ..Default::default() }
}

fn boundaries(reply: &kvrpcpb::SplitRegionResponse) -> Vec<Bytes> {
    assert_eq!(reply.region_error, None);
    assert!(reply.regions.windows(2).all(|pair| pair[0].end_key == pair[1].start_key), "they are neighbours");
    reply.regions.iter().skip(1).map(|region| region.start_key.clone()).collect()
}

#[tokio::test]
async fn keys_of_transactions_become_boundaries_in_their_encoding_and_order() {
    let kv = FakeNode::new().kv();
    let reply = kv.split_region(request(&[b"f", b"c", b"f"], false)).await;
    assert_eq!(boundaries(&reply), [memcomparable_encode(b"c"), memcomparable_encode(b"f")]);
    assert_eq!(reply.left.as_ref(), reply.regions.first());
    assert_eq!(reply.right.as_ref(), reply.regions.get(1));
}

#[tokio::test]
async fn older_clients_name_one_key() {
    let kv = FakeNode::new().kv();
    let request = SplitRegionRequest { split_key: Bytes::from_static(b"c"), ..request(&[], false) };
    assert_eq!(boundaries(&kv.split_region(request).await), [memcomparable_encode(b"c")]);
}

/// Clients of transactions decode every boundary.
#[tokio::test]
async fn the_boundary_for_a_raw_key_is_the_encoding_of_its_first_bytes() {
    let kv = FakeNode::new().kv();
    let reply = kv.split_region(request(&[b"abcdefghijkl"], true)).await;
    let boundary = &boundaries(&reply)[0];
    assert_eq!(*boundary, memcomparable_encode(b"abcdefgh"));
    assert!(b"abcdefghijkl".as_slice() < boundary && boundary < b"abcdefgi".as_slice());
}

#[tokio::test]
async fn a_key_at_which_the_region_begins_is_ignored() {
    let kv = FakeNode::new().kv();
    let right = SplitRegionRequest { context: context(crate::kv::fake::RIGHT), ..request(&[SPLIT], false) };
    let reply = kv.split_region(right).await;
    assert_eq!((reply.region_error, reply.regions.len()), (None, 1));
}

#[tokio::test]
async fn what_cannot_be_split_is_refused() {
    let kv = FakeNode::new().kv();
    let outside = kv.split_region(request(&[b"x"], false)).await.region_error.expect("refused");
    assert!(outside.key_not_in_region.is_some(), "{outside:?}");
    let many: Vec<Vec<u8>> = (0..65u8).map(|i| vec![b'a', i]).collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    for (keys, why) in [(&[][..], "1 to 64 keys, not 0"), (&many, "not 65"), (&[&[b'a'; 4096][..]], "4096 bytes")] {
        let error = kv.split_region(request(keys, false)).await.region_error.expect("refused");
        assert!(error.message.contains(why), "{}", error.message);
    }
}

/// A request that was routed before a split learns of both halves.
#[tokio::test]
async fn an_outdated_epoch_is_answered_with_all_regions_of_the_range() {
    let kv = FakeNode::new().kv();
    kv.split_region(request(&[b"c", b"f"], false)).await;
    let get = kvrpcpb::RawGetRequest { context: context(LEFT), key: Bytes::from_static(b"d"), ..Default::default() };
    let error = kv.raw_get(get).await.region_error.expect("refused").epoch_not_match.expect("by its epoch");
    let regions: Vec<u64> = error.current_regions.iter().map(|region| region.id).collect();
    assert_eq!(regions, [LEFT, 100, 101]);
}
