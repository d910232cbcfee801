//! Whole tables: a damaged one gives an error that names its file, or what was written; never a panic.
#![no_main]

use kontiki_engine::cache::BlockCache;
use kontiki_engine::iterator::Cursor;
use kontiki_engine::table::format::{check_header, decode_footer};
use kontiki_engine::table::{TableCursor, TableReader};
use kontiki_engine::{Direction, Error};
use kontiki_env::SimMachine;
use kontiki_env::fs::OpenMode;
use libfuzzer_sys::fuzz_target;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn read(data: &[u8]) -> Result<(), Error> {
    let machine = SimMachine::from_seed(1);
    let path = PathBuf::from("/000001.sst");
    let io = |error: std::io::Error| Error::io("/000001.sst", &error);
    let file = machine.env().fs.open(&path, OpenMode::CreateNew).map_err(io)?;
    file.write_at(data, 0).map_err(io)?;
    let cache = Arc::new(BlockCache::new(0));
    let reader = Arc::new(TableReader::open_file(path, 1, file, data.len() as u64, cache)?);
    reader.get(b"key", 9)?;
    for direction in [Direction::Forward, Direction::Backward] {
        let mut cursor = TableCursor::new(reader.clone(), direction);
        cursor.seek_to_first()?;
        while cursor.valid() {
            cursor.advance()?;
        }
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let _ = check_header(data, Path::new("/000001.sst"));
    let _ = decode_footer(data, Path::new("/000001.sst"), data.len() as u64);
    match read(data) {
        Ok(()) | Err(Error::UnsupportedFormat { .. }) => {}
        Err(Error::Corruption { file, .. }) => assert_eq!(file, Path::new("/000001.sst")),
        Err(other) => panic!("{other:?}"),
    }
});
