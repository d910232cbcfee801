//! Manifests and their edits: no input panics, and what decodes survives its encoding.
#![no_main]

use kontiki_engine::internals::{VersionEdit, parse_manifest};
use kontiki_env::codec::{checksum32, put_u32};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    if let Ok(edit) = VersionEdit::decode(data) {
        assert_eq!(VersionEdit::decode(&edit.encode()), Ok(edit));
    }
    // Behind a good header and in a good frame, so that the fuzzer gets past the checksums.
    let mut manifest = b"KONTIMAN".to_vec();
    put_u32(&mut manifest, 1);
    let checksum = checksum32(&[&manifest]);
    put_u32(&mut manifest, checksum);
    let length = (data.len() as u32).to_le_bytes();
    let checksum = checksum32(&[&(manifest.len() as u64).to_le_bytes(), &length, data]);
    manifest.extend_from_slice(&length);
    put_u32(&mut manifest, checksum);
    manifest.extend_from_slice(data);
    let _ = parse_manifest(&manifest, 1, Path::new("MANIFEST-000001"));
    let _ = parse_manifest(data, 1, Path::new("MANIFEST-000001"));
});
