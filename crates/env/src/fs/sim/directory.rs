//! A directory: its entries as processes see them, as the disk holds them, and the operations between.

use super::inode::Inode;
use std::collections::BTreeMap;

/// The target of a name.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    File(Inode),
    Directory,
}

/// An operation on entries that no sync of the directory has covered yet.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Add { name: String, entry: Entry },
    Rename { from: String, to: String },
    Remove { name: String },
}

impl Operation {
    fn apply(&self, entries: &mut BTreeMap<String, Entry>) {
        match self {
            Operation::Add { name, entry } => {
                entries.insert(name.clone(), entry.clone());
            }
            Operation::Rename { from, to } => {
                if let Some(entry) = entries.remove(from) {
                    entries.insert(to.clone(), entry);
                }
            }
            Operation::Remove { name } => {
                entries.remove(name);
            }
        }
    }
}

/// A directory. Invariant: `durable` with `pending` applied in order is `live`.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub(super) live: BTreeMap<String, Entry>,
    durable: BTreeMap<String, Entry>,
    pending: Vec<Operation>,
}

impl Directory {
    pub(super) fn change(&mut self, operation: Operation) {
        operation.apply(&mut self.live);
        self.pending.push(operation);
    }

    pub(super) fn sync(&mut self) {
        self.durable.clone_from(&self.live);
        self.pending.clear();
    }

    /// Number of operations a power loss may take away.
    pub(super) fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// Power loss: the first `kept` pending operations reached the disk.
    pub(super) fn lose_power(&mut self, kept: usize) {
        self.pending[..kept].iter().for_each(|operation| operation.apply(&mut self.durable));
        self.pending.clear();
        self.live.clone_from(&self.durable);
    }

    /// Rewrites every reference to a file (a copy of the file system has separate files).
    pub(super) fn map_files(&mut self, mut map: impl FnMut(&Inode) -> Inode) {
        let adds = self.pending.iter_mut().filter_map(|operation| match operation {
            Operation::Add { entry, .. } => Some(entry),
            _ => None,
        });
        for entry in self.live.values_mut().chain(self.durable.values_mut()).chain(adds) {
            if let Entry::File(inode) = entry {
                *inode = map(inode);
            }
        }
    }
}
