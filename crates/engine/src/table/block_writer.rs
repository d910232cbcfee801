//! Builds data and index blocks.
//!
//! A block: entries, then the offsets of the restart points (u32 LE each), then their number (u32 LE).
//!
//! An entry: bytes of the user key shared with the previous entry (varint, 0 at a restart point), bytes not shared
//! (varint), tag (varint: sequence number * 8 + kind, see `kind.rs`), unless it is a tombstone the length of the stored
//! bytes (varint), the rest of the user key, and the stored bytes.
//!
//! The sequence number is not prefix-compressed with the key: as a varint in front it costs 1 to 9 bytes, and the
//! user key stays a plain slice.

use crate::iterator::KeyRef;
use crate::kind::{KIND_BITS, Kind};
use kontiki_env::codec::{put_u32, put_varint};

/// Collects entries of one block.
pub struct BlockWriter {
    buffer: Vec<u8>,
    restarts: Vec<u32>,
    restart_interval: usize,
    since_restart: usize,
    last_user_key: Vec<u8>,
    last_sequence: u64,
    entries: usize,
}

impl BlockWriter {
    /// An empty block with a restart point every `restart_interval` entries.
    pub fn new(restart_interval: usize) -> BlockWriter {
        assert!(restart_interval > 0, "a block needs restart points");
        BlockWriter {
            buffer: Vec::new(),
            restarts: Vec::new(),
            restart_interval,
            since_restart: 0,
            last_user_key: Vec::new(),
            last_sequence: 0,
            entries: 0,
        }
    }

    /// Adds a version. Keys must strictly increase.
    pub fn add(&mut self, key: KeyRef<'_>, kind: Kind, stored: &[u8]) {
        assert!(!kind.is_delete() || stored.is_empty(), "a tombstone has no stored bytes");
        let last = KeyRef::new(&self.last_user_key, self.last_sequence);
        assert!(self.entries == 0 || last < key, "keys of a block must strictly increase");
        let restart = self.entries == 0 || self.since_restart == self.restart_interval;
        let shared = if restart {
            self.restarts.push(u32::try_from(self.buffer.len()).expect("a block stays far below 4 GiB"));
            self.since_restart = 0;
            0
        } else {
            common_prefix(&self.last_user_key, key.user_key)
        };
        debug_assert!(shared <= key.user_key.len() && shared <= self.last_user_key.len());
        let (_, suffix) = key.user_key.split_at(shared);
        put_varint(&mut self.buffer, shared as u64);
        put_varint(&mut self.buffer, suffix.len() as u64);
        put_varint(&mut self.buffer, key.sequence << KIND_BITS | u64::from(kind.to_byte()));
        if !kind.is_delete() {
            put_varint(&mut self.buffer, stored.len() as u64);
        }
        self.buffer.extend_from_slice(suffix);
        self.buffer.extend_from_slice(stored);
        self.last_user_key.truncate(shared);
        self.last_user_key.extend_from_slice(suffix);
        debug_assert_eq!(self.last_user_key, key.user_key, "the prefix and the rest make the key");
        self.last_sequence = key.sequence;
        self.since_restart += 1;
        self.entries += 1;
    }

    /// Bytes of the block if it ended now.
    pub fn bytes(&self) -> usize {
        self.buffer.len() + self.restarts.len() * 4 + 4
    }

    /// Whether nothing was added since the last [`BlockWriter::reset`].
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The position of the last entry.
    pub fn last_key(&self) -> KeyRef<'_> {
        KeyRef::new(&self.last_user_key, self.last_sequence)
    }

    /// Appends the restart points; the whole block. Nothing may be added until [`BlockWriter::reset`].
    pub fn finish(&mut self) -> &[u8] {
        debug_assert!(self.restarts.len() <= self.entries && (self.entries == 0) == self.restarts.is_empty());
        for restart in &self.restarts {
            put_u32(&mut self.buffer, *restart);
        }
        put_u32(&mut self.buffer, self.restarts.len() as u32);
        &self.buffer
    }

    /// Starts the next block.
    pub fn reset(&mut self) {
        self.buffer.clear();
        self.restarts.clear();
        self.since_restart = 0;
        self.entries = 0;
        self.last_user_key.clear();
    }
}

/// Length of the longest common prefix.
pub fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}
