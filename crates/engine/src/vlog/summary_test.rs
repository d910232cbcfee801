use super::*;
use crate::Family;
use crate::vlog::format::{encode_file_header, encode_header, encode_record};
use crate::vlog::index::{Moved, encode_index};
use proptest::prelude::*;

/// A sample of format version 1: two values, a skip, and for a relocated file its index.
fn sample(kind: ValueFileKind) -> Vec<u8> {
    let mut bytes = encode_file_header(1, kind);
    encode_record(&mut bytes, 1, 32, Family(0), b"a", b"first");
    let second = bytes.len() as u64;
    encode_record(&mut bytes, 1, second, Family(3), b"bb", b"second value");
    let skip = bytes.len() as u64;
    encode_header(&mut bytes, 1, skip, ValueRecordHeader::Skip { bytes: 8 });
    bytes.extend_from_slice(&[0xff; 8]);
    if kind == ValueFileKind::Relocated {
        let moved = |old_offset, new_offset| Moved { segment: 7, old_offset, new_offset };
        let index = encode_index(1, bytes.len() as u64, &mut [moved(64, 32), moved(8000, second)]);
        bytes.extend_from_slice(&index);
    }
    bytes
}

#[test]
fn a_summary_counts_what_there_is() {
    for kind in [ValueFileKind::Segment, ValueFileKind::Relocated] {
        let bytes = sample(kind);
        let summary = summarize_value_file(Path::new("f"), 1, &bytes).expect("sound");
        let index_entries = if kind == ValueFileKind::Relocated { 2 } else { 0 };
        let expected = ValueFileContents {
            kind,
            values: 2,
            value_bytes: 17,
            key_bytes: 3,
            damaged: 0,
            skips: 1,
            index_entries,
            end: 136,
        };
        assert_eq!(summary, expected);
        let mut damaged = bytes.clone();
        damaged[32 + 24] ^= 1;
        assert_eq!(summarize_value_file(Path::new("f"), 1, &damaged).expect("whole").damaged, 1);
    }
}

#[test]
fn a_sample_of_format_version_1_is_as_it_was() {
    let hash = |kind| kontiki_env::codec::checksum32(&[&sample(kind)]);
    assert_eq!((hash(ValueFileKind::Segment), hash(ValueFileKind::Relocated)), (SEGMENT_SAMPLE, RELOCATED_SAMPLE));
}

/// Checksums of the samples. If one changes, so has the format: raise its version.
const SEGMENT_SAMPLE: u32 = 3_113_402_330;
const RELOCATED_SAMPLE: u32 = 2_074_314_693;

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), relocated in any::<bool>()) {
        let kind = if relocated { ValueFileKind::Relocated } else { ValueFileKind::Segment };
        let mut file = encode_file_header(1, kind);
        file.extend_from_slice(&bytes);
        let _ = summarize_value_file(Path::new("f"), 1, &file);
        let _ = summarize_value_file(Path::new("f"), 1, &bytes);
    }

    #[test]
    fn a_flipped_bit_is_noticed_or_does_not_matter(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        for kind in [ValueFileKind::Segment, ValueFileKind::Relocated] {
            let mut bytes = sample(kind);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(summary) = summarize_value_file(Path::new("f"), 1, &bytes) {
                prop_assert!(summary.values <= 2 && summary.end <= 136);
            }
        }
    }
}
