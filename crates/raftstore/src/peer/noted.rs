//! Entries of the log that matter before they are handed out for apply.

use super::Peer;
use crate::command;
use crate::consensus::{Entry, EntryType};
use crate::region::PeerId;

/// What such an entry does when it is applied, if it is accepted then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// Removes this member: it is not to know of the commit (`members.rs`).
    Removes(PeerId),
    /// Prepares a merge. Every replica had the log through here, and what follows is retained (`merge.rs`).
    Prepares(u64),
}

impl Noted {
    /// Of a preparation: the index through which every replica had the log.
    pub fn replicated(self) -> Option<u64> {
        match self {
            Noted::Prepares(replicated) => Some(replicated),
            Noted::Removes(_) => None,
        }
    }
}

impl Peer {
    /// Entries were appended.
    pub(super) fn note_entries(&mut self, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            self.noted.retain(|(index, _)| *index < first.index);
            self.noted.extend(noted_in(entries, 0));
        }
    }

    /// The entries that remove members, and which.
    pub(super) fn removals(&self) -> impl Iterator<Item = (u64, PeerId)> + '_ {
        self.noted.iter().filter_map(|(index, noted)| match noted {
            Noted::Removes(member) => Some((*index, *member)),
            Noted::Prepares(_) => None,
        })
    }
}

/// The entries above `index` that matter before they are handed out.
pub(crate) fn noted_in<'a>(entries: impl IntoIterator<Item = &'a Entry>, index: u64) -> Vec<(u64, Noted)> {
    let above = entries.into_iter().filter(|entry| entry.index > index);
    let noted = above.filter_map(|entry| {
        let noted = match entry.get_entry_type() {
            EntryType::EntryNormal => Noted::Prepares(command::replicated_by(&entry.context)?),
            EntryType::EntryConfChange => Noted::Removes(command::removed_by(&entry.context)?),
            EntryType::EntryConfChangeV2 => return None,
        };
        Some((entry.index, noted))
    });
    noted.collect()
}
