//! The column families of a served directory, as the layers that own them hand them over: this crate knows the roles of
//! families and none of their numbers.

use crate::region::{Region, Space};
use kontiki_engine::{BatchOp, Family, WriteBatch};

/// A table of the families, for [`crate::Store::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// Store identity, region descriptors, applied positions: written by raftstore alone.
    pub meta: Family,
    /// In which the region of [`Space::System`] owns its key range, ascending.
    pub system: &'static [Family],
    /// In which a region of [`Space::Data`] owns its key range, ascending.
    pub data: &'static [Family],
    /// Those of `data` that earlier releases do not have: an entry that writes there has a format of its own, at which
    /// they stop. They would refuse it otherwise, and differ from the replicas that apply it.
    pub later: &'static [Family],
    /// The numbers that families had in log entries and snapshot files of earlier versions, and their present ones.
    pub earlier: &'static [(Family, Family)],
}

impl Families {
    /// The families in which a region of this space owns its key range, ascending.
    pub fn of(&self, space: Space) -> &'static [Family] {
        match space {
            Space::System => self.system,
            Space::Data => self.data,
        }
    }

    /// What is wrong with the table.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        let is_sound = |families: &[Family]| !families.is_empty() && families.is_sorted_by(|a, b| a.0 < b.0);
        let owned = || self.system.iter().chain([&self.meta]);
        if !is_sound(self.system) || !is_sound(self.data) {
            return Err("each space owns families, in ascending order");
        }
        if self.system.contains(&self.meta) || owned().any(|family| self.data.contains(family)) {
            return Err("no family has two owners");
        }
        if self.later.iter().any(|family| !self.data.contains(family)) {
            return Err("later families belong to the data");
        }
        Ok(())
    }

    /// Whether the batch writes where earlier releases have no family.
    pub(crate) fn needs_later(&self, batch: &WriteBatch) -> bool {
        !self.later.is_empty() && batch.ops().any(|op| self.later.contains(&op.family()))
    }

    /// The present family for an earlier number.
    pub fn renumbered(&self, family: Family) -> Family {
        self.earlier.iter().find(|(earlier, _)| *earlier == family).map_or(family, |(_, now)| *now)
    }

    /// A batch with earlier numbers, converted to the present ones.
    pub(crate) fn renumber(&self, batch: &WriteBatch) -> WriteBatch {
        let mut now = WriteBatch::new();
        for op in batch.ops() {
            let family = self.renumbered(op.family());
            match op {
                BatchOp::Put { key, value, .. } => now.put(family, key, value),
                BatchOp::PutExpiring { key, value, expires_at_ms, .. } => {
                    now.put_expiring(family, key, value, expires_at_ms)
                }
                BatchOp::Delete { key, .. } => now.delete(family, key),
                BatchOp::DeleteRange { start, end, .. } => now.delete_range(family, start..end),
            }
        }
        now
    }

    /// The first key of the batch that the region must not write (its family or its range is not the region's).
    pub fn first_foreign_key<'a>(&self, region: &Region, batch: &'a WriteBatch) -> Option<&'a [u8]> {
        let families = self.of(region.space);
        let within = |op: &BatchOp<'_>| {
            let whole = match op {
                // Its end is exclusive, so it may be the region's own end. An empty one is that of the family.
                BatchOp::DeleteRange { end, .. } => region.end_key == *end || (!end.is_empty() && region.contains(end)),
                _ => true,
            };
            whole && families.contains(&op.family()) && region.contains(op.key())
        };
        batch.ops().find(|op| !within(op)).map(|op| op.key())
    }
}
