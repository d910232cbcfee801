use super::*;
use proptest::prelude::*;

const DATA_END: u64 = 1 << 20;

fn moved(pairs: &[(u64, u64)]) -> Vec<Moved> {
    let entry = |(at, (segment, old)): (usize, &(u64, u64))| Moved {
        segment: *segment,
        old_offset: old * RECORD_ALIGNMENT,
        new_offset: 32 + at as u64 * 64,
    };
    pairs.iter().enumerate().map(entry).collect()
}

fn open(number: u64, bytes: &[u8]) -> Option<Directory> {
    let at = bytes.len().checked_sub(TRAILER_BYTES as usize)?;
    let trailer = Trailer::decode(number, DATA_END + bytes.len() as u64, &bytes[at..])?;
    let start = (trailer.directory_offset - DATA_END) as usize;
    Directory::decode(&trailer, bytes.get(start..start + trailer.directory_bytes() as usize)?)
}

fn find(number: u64, directory: &Directory, bytes: &[u8], segment: u64, old: u64) -> Option<u64> {
    let page = directory.page_of(segment, old)?;
    let start = (page.offset - DATA_END) as usize;
    page.decode(number, &bytes[start..start + page.bytes()])?.find(old)
}

#[test]
fn every_value_is_found_over_many_pages_and_nothing_else() {
    let pairs: Vec<(u64, u64)> =
        (0..2000).map(|i| (5, 4 + i * 3)).chain((0..3).map(|i| (9, 4 + i))).chain([(10, 4)]).collect();
    let mut entries = moved(&pairs);
    let bytes = encode_index(77, DATA_END, &mut entries);
    let directory = open(77, &bytes).expect("whole");
    assert_eq!(directory.pages().len(), 6);
    assert!(open(78, &bytes).is_none(), "of another file");
    for entry in &entries {
        assert_eq!(find(77, &directory, &bytes, entry.segment, entry.old_offset), Some(entry.new_offset));
    }
    for (segment, old) in [(5, 3), (5, 5), (5, 4 + 2000 * 3), (6, 4), (9, 1), (9, 7), (11, 4), (0, 4)] {
        assert_eq!(find(77, &directory, &bytes, segment, old * RECORD_ALIGNMENT), None, "{segment} {old}");
    }
    let listed: usize = directory
        .pages()
        .iter()
        .map(|page| {
            let start = (page.offset - DATA_END) as usize;
            page.decode(77, &bytes[start..start + page.bytes()]).expect("whole").iter().count()
        })
        .sum();
    assert_eq!(listed, entries.len());
}

proptest! {
    #[test]
    fn no_flipped_bit_gives_another_answer(
        pairs in proptest::collection::btree_set((0u64..3, 4u64..50), 1..20),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut entries = moved(&pairs.into_iter().collect::<Vec<_>>());
        let mut bytes = encode_index(7, DATA_END, &mut entries);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Some(directory) = open(7, &bytes) {
            for entry in &entries {
                let found = find(7, &directory, &bytes, entry.segment, entry.old_offset);
                prop_assert!(found.is_none() || found == Some(entry.new_offset));
            }
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = open(7, &bytes);
        let _ = Trailer::decode(7, bytes.len() as u64, &bytes);
        let page = Page { segment: 1, first: 0, entries: 3, offset: 40 };
        let _ = page.decode(7, &bytes);
    }
}
