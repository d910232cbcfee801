use super::*;

fn sample() -> Record {
    let empty = crate::version::Version::default();
    let version = crate::version::copy_edit(&empty, &empty, 9).expect("nothing is open");
    let file = |number| LiveFile { kind: FileKind::Table, number, bytes: number * 1000 };
    Record { made_at_ms: 1 << 40, sequence: 77, version, files: vec![(file(3), 9), (file(8), u32::MAX)] }
}

#[test]
fn a_record_survives_its_encoding() {
    let record = sample();
    assert_eq!(Record::decode(&record.encode(), Path::new("r")).expect("whole"), record);
    decode_record(&record.encode()).expect("sound");
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let bytes = sample().encode();
    for at in 0..bytes.len() {
        assert!(Record::decode(&bytes[..at], Path::new("r")).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let error = Record::decode(&damaged, Path::new("r")).expect_err("damage is found").to_string();
            assert!(error.contains('r'), "{error}");
        }
    }
}

#[test]
fn a_newer_format_is_refused_with_the_remedy() {
    let mut bytes = sample().encode();
    bytes[8] = 2;
    let error = Record::decode(&bytes, Path::new("backups/1")).expect_err("newer");
    assert!(matches!(error, Error::UnsupportedFormat { .. }));
    assert!(error.to_string().contains("newer kontiki"), "{error}");
}
