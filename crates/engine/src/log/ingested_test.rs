use super::*;

#[test]
fn what_is_encoded_is_decoded_and_every_cut_is_refused() {
    let table = |family, number, smallest: &'static str, largest: &'static str| IngestedTable {
        family: Family(family),
        number,
        smallest_key: Bytes::from_static(smallest.as_bytes()),
        largest_key: Bytes::from_static(largest.as_bytes()),
    };
    let tables = vec![table(0, 7, "", "k"), table(u32::MAX, u64::MAX, "same", "same")];
    let bytes = encode_ingested(&tables);
    assert_eq!(decode_ingested(5, &bytes), Ok(tables));
    for end in 0..bytes.len() {
        assert_eq!(decode_ingested(5, &bytes[..end]), Err(Truncated), "cut at {end}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(decode_ingested(5, &longer), Err(Truncated));
    assert_eq!(decode_ingested(0, &bytes), Err(Truncated), "an ingest has a number");
    assert_eq!(decode_ingested(5, &encode_ingested(&[])), Err(Truncated), "an ingest of nothing leaves no record");
    assert_eq!(decode_ingested(5, &encode_ingested(&[table(1, 1, "b", "a")])), Err(Truncated));
}
