//! How tables are written.

use super::FamilyOptions;

/// A table ends after this many bytes, at the next user key, whatever the options: its index, at worst as large as
/// its data, then stays far below the largest block that a reader accepts (`table::format::BLOCK_BYTES_MAX`).
pub const TABLE_BYTES_MAX: u64 = 128 << 20;

/// How blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Stored as they are.
    None,
    /// LZ4 where it saves at least an eighth.
    Lz4,
    /// Zstandard where it saves at least an eighth: about a fifth smaller than LZ4, at ten times its cost to write and
    /// more to read. For the last level of data that is kept and rarely read.
    Zstd,
}

/// How tables are written. Tables written with other options can be read.
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// A data block ends once it has this many bytes, uncompressed. Default 4 KiB: one page for a point read.
    pub block_bytes: usize,
    /// Bloom filter bits for each user key; 0 for none. Default 10: about 1 % of absent keys pass.
    pub filter_bits_per_key: usize,
    /// The filter also holds the first so many bytes of keys that are as long, for scans of one prefix; 0 for none.
    /// Default 0.
    pub filter_prefix_bytes: usize,
    /// Default LZ4.
    pub compression: Compression,
}

impl Default for TableOptions {
    fn default() -> TableOptions {
        TableOptions {
            block_bytes: 4 << 10,
            filter_bits_per_key: 10,
            filter_prefix_bytes: 0,
            compression: Compression::Lz4,
        }
    }
}

impl TableOptions {
    /// The options for a family's tables of one level.
    pub fn for_family(&self, family: &FamilyOptions, level: usize) -> TableOptions {
        let compression = family.compression.get(level).or(family.compression.last());
        TableOptions {
            compression: compression.copied().unwrap_or(self.compression),
            filter_prefix_bytes: family.filter_prefix_bytes.unwrap_or(self.filter_prefix_bytes),
            ..self.clone()
        }
    }
}
