//! Whole tables: a damaged one gives an error that names its file, or what was written; never a panic.
//!
//! The input is read in two ways: as a file, and as changes to the blocks of a good table, whose checksums are made
//! right again so that the fuzzer gets past them.
#![no_main]

use bytes::Bytes;
use kontiki_engine::internals::{
    Block, BlockCache, BlockHandle, Cursor, FOOTER_BYTES, KeyRef, Kind, TRAILER_BYTES, TableCursor, TableReader,
    TableWriter, check_header, decode_block, decode_footer,
};
use kontiki_engine::{Compression, TableOptions};
use kontiki_engine::{Direction, Error, Family};
use kontiki_env::SimMachine;
use kontiki_env::codec::checksum32;
use kontiki_env::fs::{OpenMode, read_all};
use libfuzzer_sys::fuzz_target;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

const PATH: &str = "/000001.sst";

/// A good table, and where its blocks are.
struct Sample {
    file: Vec<u8>,
    blocks: Vec<BlockHandle>,
}

/// The payload of a block of a good table.
fn payload(file: &[u8], handle: BlockHandle) -> Vec<u8> {
    let end = (handle.offset + handle.length) as usize + TRAILER_BYTES;
    decode_block(file[handle.offset as usize..end].to_vec(), handle.offset).expect("a good table")
}

/// The handles in a block of the index.
fn handles(file: &[u8], index: BlockHandle) -> Vec<BlockHandle> {
    let block = Block::new(Bytes::from(payload(file, index))).expect("a good table");
    (0..block.len()).map(|at| BlockHandle::decode(&mut block.stored(at)).expect("a good table")).collect()
}

fn build() -> Sample {
    let machine = SimMachine::from_seed(1);
    let env = machine.env();
    let options = TableOptions { block_bytes: 64, compression: Compression::None, ..TableOptions::default() };
    let mut writer = TableWriter::create(&env, Path::new("/"), 1, Family::DEFAULT, options).expect("a healthy disk");
    for i in 0..40u64 {
        let key = format!("key{:02}", i / 2);
        let (kind, value) = if i % 7 == 0 { (Kind::Delete, &b""[..]) } else { (Kind::Put, &b"value"[..]) };
        writer.add(KeyRef::new(key.as_bytes(), 100 - i), kind, value).expect("a healthy disk");
    }
    let finished = writer.finish().expect("a healthy disk");
    assert!(finished.meta().entries == 40, "all are in");
    let file = read_all(&*env.fs, Path::new(PATH)).expect("a healthy disk");
    let footer_at = file.len() - FOOTER_BYTES;
    let footer = decode_footer(&file[footer_at..], Path::new(PATH), footer_at as u64).expect("a good table");
    let mut blocks = vec![footer.filter, footer.properties, footer.index];
    for partition in handles(&file, footer.index) {
        blocks.push(partition);
        blocks.extend(handles(&file, partition));
    }
    assert!(blocks.len() > 6, "several data blocks");
    Sample { file, blocks }
}

/// Each four bytes of `data` select a block, a position in its payload or its compression byte, and the change there.
fn changed(sample: &Sample, data: &[u8]) -> Vec<u8> {
    let mut file = sample.file.clone();
    for change in data.chunks_exact(4).take(16) {
        let handle = sample.blocks[change[0] as usize % sample.blocks.len()];
        let (start, length) = (handle.offset as usize, handle.length as usize);
        let place = u16::from_le_bytes([change[1], change[2]]) as usize % (length + 1);
        file[start + place] ^= change[3];
        let checksum = checksum32(&[&file[start..=start + length], &handle.offset.to_le_bytes()]);
        file[start + length + 1..start + length + TRAILER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }
    file
}

fn read(data: &[u8]) -> Result<(), Error> {
    let machine = SimMachine::from_seed(1);
    let path = PathBuf::from(PATH);
    let io = |error: std::io::Error| Error::io(PATH, &error);
    let file = machine.env().fs.open(&path, OpenMode::CreateNew).map_err(io)?;
    file.write_at(data, 0).map_err(io)?;
    let cache = Arc::new(BlockCache::new(0));
    let reader = Arc::new(TableReader::open_file(path, 1, file, data.len() as u64, cache)?);
    for key in [&b"key"[..], b"key07", b"key19"] {
        reader.get(key, 99)?;
    }
    for direction in [Direction::Forward, Direction::Backward] {
        let mut cursor = TableCursor::new(reader.clone(), direction);
        cursor.seek_to_first()?;
        while cursor.valid() {
            cursor.advance()?;
        }
    }
    Ok(())
}

fn check(file: &[u8]) {
    match read(file) {
        Ok(()) | Err(Error::UnsupportedFormat { .. }) => {}
        Err(Error::Corruption { file, .. }) => assert_eq!(file, Path::new(PATH)),
        Err(other) => panic!("{other:?}"),
    }
}

fuzz_target!(|data: &[u8]| {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    let sample = SAMPLE.get_or_init(|| {
        let sample = build();
        read(&changed(&sample, &[0, 0, 0, 0])).expect("a change of nothing leaves a good table");
        sample
    });
    let _ = check_header(data, Path::new(PATH));
    let _ = decode_footer(data, Path::new(PATH), data.len() as u64);
    check(data);
    check(&changed(sample, data));
});
