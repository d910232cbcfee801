//! What the layer above may drop while tables are merged.

use crate::{Family, Result};
use std::fmt;
use std::sync::Arc;

/// Decides, while tables of a family are merged, which entries the layer above does not need any more.
///
/// To drop an entry is to delete its key, as of the entry: an older value of the key does not come back, and a newer
/// one is not touched. The filter is asked about the newest value that the merged tables have of a key; a newer one may
/// be elsewhere. Whether it is asked, and when, is up to compaction: it must be right to drop the entry now and at any
/// later time.
///
/// Snapshots that were taken before keep what they see. A later read does not find the entry; so before a pass begins,
/// whatever must not be read any more has to be refused.
pub trait CompactionFilter: Send + Sync {
    /// Whether entries of the family are ever dropped. Constant: a manual compaction then rewrites all tables of the
    /// range.
    fn filters(&self, family: Family) -> bool;

    /// Begins a pass over a part of a family. `None`: nothing is dropped.
    fn begin(&self, family: Family) -> Option<Box<dyn FilterPass>>;
}

/// A pass of a filter over keys in ascending order.
pub trait FilterPass {
    /// Whether to drop an entry. `value` is `None` if it is in the value log. An error ends the compaction, which
    /// changes nothing then and is tried again.
    fn drops(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool>;
}

/// A filter in the options of a database.
#[derive(Clone)]
pub struct FilterHandle(pub Arc<dyn CompactionFilter>);

impl fmt::Debug for FilterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FilterHandle")
    }
}
