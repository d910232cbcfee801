use super::*;

fn sample() -> Record {
    let empty = crate::version::Version::default();
    let version = crate::version::copy_edit(&empty, &empty, 9).expect("nothing is open");
    let stored = |number, checksum, home| StoredFile {
        file: LiveFile { kind: FileKind::Table, number, bytes: number * 1000 },
        checksum,
        home,
    };
    let files = vec![stored(3, 9, 5), stored(8, u32::MAX, u64::MAX)];
    Record { made_at_ms: 1 << 40, sequence: 77, copied_bytes: Some(8000), version, files }
}

fn decode(bytes: &[u8]) -> Result<Record> {
    Record::decode(bytes, 6, Path::new("r"))
}

#[test]
fn a_record_survives_its_encoding() {
    let record = sample();
    assert_eq!(decode(&record.encode()).expect("whole"), record);
    decode_record(&record.encode()).expect("sound");
}

/// As version 1 wrote it.
#[test]
fn a_record_of_the_first_format_is_read() {
    let record = sample();
    let mut body = Vec::new();
    put_varint(&mut body, record.made_at_ms);
    put_varint(&mut body, record.sequence);
    put_slice(&mut body, &record.version.encode());
    put_varint(&mut body, record.files.len() as u64);
    for StoredFile { file, checksum, .. } in &record.files {
        body.push(file.kind.to_byte());
        put_varint(&mut body, file.number);
        put_varint(&mut body, file.bytes);
        put_u32(&mut body, *checksum);
    }
    let mut bytes = MAGIC.to_vec();
    put_u32(&mut bytes, 1);
    put_u32(&mut bytes, checksum32(&[&body]));
    bytes.extend_from_slice(&body);
    let found = decode(&bytes).expect("whole");
    assert!(found.files.iter().all(|stored| stored.home == 6), "{found:?}");
    let files = record.files.iter().map(|stored| StoredFile { home: 6, ..*stored }).collect();
    assert_eq!(found, Record { copied_bytes: None, files, ..record });
    decode_record(&bytes).expect("sound");
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let bytes = sample().encode();
    for at in 0..bytes.len() {
        assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let error = decode(&damaged).expect_err("damage is found").to_string();
            assert!(error.contains('r'), "{error}");
        }
    }
}

#[test]
fn a_newer_format_is_refused_with_the_remedy() {
    let mut bytes = sample().encode();
    bytes[8] = 3;
    let error = Record::decode(&bytes, 6, Path::new("backups/1")).expect_err("newer");
    assert!(matches!(error, Error::UnsupportedFormat { .. }));
    assert!(error.to_string().contains("newer kontiki"), "{error}");
}
