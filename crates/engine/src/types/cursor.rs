//! The trait of everything that walks over versions: memtables, tables, levels and their merge.

use super::{KeyRef, Kind, Result};
use bytes::Bytes;

/// Steps of [`Cursor::prepare_seek`]: the slot of the block, the block, what a search of it looks at.
pub const SEEK_STEPS: usize = 3;

/// Walks over versions in one direction. A new cursor stands nowhere (not valid) until one of the seeks.
///
/// After an error the cursor is not valid, and only a successful seek makes it valid again.
pub trait Cursor: Send {
    /// Whether it stands on a version.
    fn valid(&self) -> bool;
    /// The position of the current version. Must be valid.
    fn key(&self) -> KeyRef<'_>;
    /// What the current version says. Must be valid.
    fn kind(&self) -> Kind;
    /// The bytes that go with the current version's kind; shares the block's or memtable's memory. Must be valid.
    fn stored(&self) -> Bytes;
    /// The same, borrowed: a caller that only looks at the bytes needs no reference count.
    fn stored_slice(&self) -> &[u8];
    /// A number of versions right behind the current one that come before `limit` in the cursor's direction, as far as
    /// that is found out cheaply: a merge passes over them without comparing. Must be valid.
    fn run_before(&self, limit: KeyRef<'_>) -> usize {
        let _ = limit;
        0
    }
    /// What the version so many steps behind the current one says, if it is in memory. Must be valid.
    fn peek(&self, steps: usize) -> Option<(Kind, &[u8])> {
        let _ = steps;
        None
    }
    /// Goes to the next version in its direction. Must be valid.
    fn advance(&mut self) -> Result<()>;
    /// Before a [`Cursor::seek`] to the same target: does a part of its work, in steps from 0 to `SEEK_STEPS`, each
    /// of which ends where it would have to wait for memory and has that fetched. So a merge overlaps the waits of its
    /// sources.
    fn prepare_seek(&mut self, target: KeyRef<'_>, step: usize) -> Result<()> {
        let _ = (target, step);
        Ok(())
    }
    /// Goes to the first version at or beyond `target` in its direction.
    fn seek(&mut self, target: KeyRef<'_>) -> Result<()>;
    /// Goes to the first version in its direction.
    fn seek_to_first(&mut self) -> Result<()>;
}
