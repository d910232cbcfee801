use super::*;
use kontiki_env::testing::check_golden;
use std::path::Path;

const ID: FileId = FileId { region: StreamId(5), number: 3 };

fn file(bodies: &[&[u8]]) -> Vec<u8> {
    let mut file = encode_header(ID, HEADER_BYTES);
    for body in bodies {
        let offset = file.len() as u64;
        file.extend(encode_record(ID, offset, offset, body));
    }
    file
}

#[test]
fn names_are_read_back_and_others_are_not() {
    assert_eq!(FileId::parse(&ID.name()), Some(ID));
    assert_eq!(ID.name(), "00000000000000000005-0000000003.log");
    for name in ["5-3.log", "x", "00000000000000000005-0000000003.log.tmp", "00000000000000000005-+000000003.log"] {
        assert_eq!(FileId::parse(name), None, "{name}");
    }
}

#[test]
fn records_pass_at_their_place_only() {
    let file = file(&[b"first", b"", b"the third"]);
    let first = decode_record(&file, 40, ID, 40).expect("whole");
    assert_eq!((first.durable, &file[first.body.clone()]), (40, &b"first"[..]));
    assert_eq!(decode_record(&file, 40, ID, 48), None, "another offset");
    assert_eq!(decode_record(&file, 40, FileId { number: 4, ..ID }, 40), None, "another file");
    assert_eq!(decode_record(&file, 40, FileId { region: StreamId(6), ..ID }, 40), None, "another region");
    assert_eq!(decode_record(&[0; 64], 0, ID, 40), None, "zeros");
    for at in 40..60 {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            assert_eq!(decode_record(&damaged, 40, ID, 40), None, "byte {at}");
        }
    }
}

#[test]
fn a_later_record_tells_what_was_durable() {
    let mut file = file(&[b"first", b"second", b"third"]);
    file[41] ^= 1;
    assert_eq!(claim_behind(&file, 40, ID), 88, "of the third one");
    assert_eq!(claim_behind(&file[..88], 40, ID), 64);
    assert_eq!(claim_behind(&file[..64], 40, ID), 0);
}

#[test]
fn headers_are_checked() {
    let header = encode_header(ID, 400);
    assert_eq!(decode_header(&header, ID), Ok(400));
    assert_eq!(decode_header(&header, FileId { number: 1, ..ID }), Err(BadHeader::Damaged));
    assert_eq!(decode_header(&header[..39], ID), Err(BadHeader::Damaged));
    for at in 0..40 {
        let mut damaged = header.clone();
        damaged[at] ^= 4;
        assert_eq!(decode_header(&damaged, ID), Err(BadHeader::Damaged), "byte {at}");
    }
    assert_eq!(decode_header(&encode_header_of(2, ID, 400), ID), Err(BadHeader::Version(2)));
}

#[test]
fn the_format_on_disk_is_as_it_was() {
    let mut body = Vec::new();
    crate::ops::put_truncate(&mut body, 4);
    crate::ops::put_state(&mut body, b"state");
    crate::ops::put_append(&mut body, 5, 2, [&b"one"[..], b"two"].into_iter());
    check_golden(Path::new("tests/golden/raft-log-file.hex"), &file(&[&body, b"", &[]]));
}
