//! Copies of single files, and their checksums.

use crate::{Error, Result};
use kontiki_env::Env;
use kontiki_env::codec::checksum32;
use kontiki_env::fs::{File, OpenMode};
use std::path::Path;

/// Bytes copied at once: large enough that system calls do not count, small enough for any memory.
const COPY_BYTES: usize = 1 << 20;

/// Copies a file to a path that does not exist, durably but for its name; returns the checksum of its bytes.
pub(crate) fn copy_file(env: &Env, from: &Path, to: &Path, bytes: u64, note: &mut dyn FnMut(u64)) -> Result<u32> {
    let source = env.fs.open(from, OpenMode::Read).map_err(|error| Error::io(from, &error))?;
    let target = env.fs.open(to, OpenMode::CreateNew).map_err(|error| Error::io(to, &error))?;
    let mut checksum = Checksum::default();
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < bytes {
        let piece = read_piece(&*source, from, &mut buffer, at, bytes)?;
        checksum.add(piece);
        target.write_at(piece, at).map_err(|error| Error::io(to, &error))?;
        at += piece.len() as u64;
        note(piece.len() as u64);
    }
    target.sync().map_err(|error| Error::failed_sync(to, &error))?;
    Ok(checksum.finish())
}

/// The checksum of a file's first `bytes` bytes.
pub(crate) fn checksum_file(env: &Env, path: &Path, bytes: u64, note: &mut dyn FnMut(u64)) -> Result<u32> {
    let file = env.fs.open(path, OpenMode::Read).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => missing(path),
        _ => Error::io(path, &error),
    })?;
    let length = file.len().map_err(|error| Error::io(path, &error))?;
    if length != bytes {
        let what = format!("the file has {length} bytes where {bytes} are expected");
        return Err(Error::Corruption { file: path.to_path_buf(), offset: length.min(bytes), what });
    }
    let mut checksum = Checksum::default();
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < bytes {
        let piece = read_piece(&*file, path, &mut buffer, at, bytes)?;
        checksum.add(piece);
        at += piece.len() as u64;
        note(piece.len() as u64);
    }
    Ok(checksum.finish())
}

fn missing(path: &Path) -> Error {
    Error::Corruption { file: path.to_path_buf(), offset: 0, what: "the file is missing".to_string() }
}

fn read_piece<'a>(file: &dyn File, path: &Path, buffer: &'a mut [u8], at: u64, bytes: u64) -> Result<&'a [u8]> {
    let wanted = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(buffer.len());
    let buffer = buffer.get_mut(..wanted).expect("at most the buffer is wanted");
    let count = file.read_at(buffer, at).map_err(|error| Error::io(path, &error))?;
    if count == 0 {
        let what = format!("the file ends where {bytes} bytes are expected");
        return Err(Error::Corruption { file: path.to_path_buf(), offset: at, what });
    }
    Ok(&buffer[..count])
}

/// The checksum of a stream of pieces, however it is cut: the CRC-32 of the CRC-32s of its mebibytes.
#[derive(Default)]
struct Checksum {
    sums: Vec<u8>,
    piece: Vec<u8>,
}

impl Checksum {
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(COPY_BYTES - self.piece.len()));
            self.piece.extend_from_slice(now);
            if self.piece.len() == COPY_BYTES {
                self.end_piece();
            }
            bytes = rest;
        }
    }

    fn end_piece(&mut self) {
        self.sums.extend_from_slice(&checksum32(&[&self.piece]).to_le_bytes());
        self.piece.clear();
    }

    fn finish(mut self) -> u32 {
        if !self.piece.is_empty() {
            self.end_piece();
        }
        checksum32(&[&self.sums])
    }
}
