//! A region becomes several: the parent's side of a split. docs/internals/split.md has the design.
//!
//! A split is applied in two steps. First the logs of the regions that it makes begin, durably (`store/create.rs`);
//! until then it waits, and so does what follows it in the log. Then it is handed out like any other entry, and its
//! batch has the descriptors and applied positions of all of them. A crash in between finds logs that the split,
//! applied again, takes over. No other replica is needed for that: with the logs, it is recorded that the split is
//! committed.

use super::Peer;
use crate::command::{self, Carrier, Change};
use crate::consensus::Entry;
use crate::effect::{AppliedCommand, ApplyPart};
use crate::meta::{self, put_applied, put_region};
use crate::outbox::{AppliedRegion, Outbox, SplitBegun};
use crate::region::Region;

/// The regions that splits make.
#[derive(Default)]
pub(super) struct Splitting {
    /// The committed split that waits for the logs of its regions.
    waiting: Option<u64>,
    /// These logs are durable.
    is_logged: bool,
    /// Regions of splits in the apply round that is being made.
    made: Vec<Region>,
    /// The last split, or commit of a merge, that was handed out: until tables hold its descriptors, a restart applies
    /// it again.
    pub handed: u64,
    /// Term and index of the last range change that this replica proposed as leader.
    pub proposed: (u64, u64),
}

impl Peer {
    /// Whether the next committed entry can be handed out. The commit of a merge may have to wait, and a split cannot,
    /// until the logs of its regions are durable here: those are requested.
    pub(super) fn is_next_prepared(&mut self, out: &mut Outbox) -> bool {
        let Some(entry) = self.deferred.front() else { return true };
        if command::is_commit_of_merge(&entry.context) {
            return self.is_source_ready(out);
        }
        if !command::is_split(&entry.context) {
            return true;
        }
        if let Some(index) = self.splitting.waiting {
            assert_eq!(index, entry.index, "a split waits at the front");
            return self.splitting.is_logged;
        }
        // One that is refused makes nothing.
        let Some(children) = self.children_of(entry) else { return true };
        self.splitting.waiting = Some(entry.index);
        self.splitting.is_logged = false;
        self.state_dirty = true;
        out.splits.push(SplitBegun { parent: self.region.id, children });
        false
    }

    fn children_of(&self, entry: &Entry) -> Option<Vec<Region>> {
        let command = command::decode(self.families, Carrier::Normal, &entry.context, &entry.data).ok()??;
        match command::decide(self.families, &self.members, command) {
            Ok(Change::Split { children, .. }) => Some(children),
            _ => None,
        }
    }

    /// Whether a committed split waits for logs.
    pub(super) fn waits_for_logs(&self) -> bool {
        self.splitting.waiting.is_some() && !self.splitting.is_logged
    }

    /// The logs of the regions that the waiting split makes are durable.
    pub fn split_logged(&mut self) {
        assert!(self.splitting.waiting.is_some(), "a split waits for them");
        self.splitting.is_logged = true;
    }

    /// A committed split is applied.
    pub(super) fn split(&mut self, index: u64, region: Region, children: Vec<Region>, out: &mut Outbox) {
        assert_eq!(self.splitting.waiting.take(), Some(index), "its logs are durable");
        assert!(std::mem::take(&mut self.splitting.is_logged), "its logs are durable");
        tracing::info!(region = self.region.id.0, index, "split: {children:?}");
        self.replaced.push_back((index, self.members.clone()));
        self.change_descriptor(index, region, out);
        self.splitting.made.extend(children);
        self.splitting.handed = index;
        // A follower that gets it would hold the range of the new regions, and could not create them.
        self.retire(out);
    }

    /// Adds the descriptors of the regions that the round's splits made, after the parent's own part.
    pub(super) fn put_made(&mut self, out: &mut Outbox) {
        let position = meta::INITIAL;
        for region in std::mem::take(&mut self.splitting.made) {
            let first = out.apply.len();
            put_region(self.families.meta, &mut out.apply, &region);
            let commands = vec![AppliedCommand { index: position.index, operations: first..first + 1 }];
            put_applied(self.families.meta, &mut out.apply, region.id, position);
            let operations = first..out.apply.len();
            let (index, term) = (position.index, position.term);
            out.apply_parts.push(ApplyPart { region: region.id, index, term, commands, operations });
            out.applied.push(AppliedRegion { region: region.id, position, bytes: 0, entry_bytes: 0 });
            out.made.push(region.id);
        }
    }

    /// Whether a range change that this leader proposed may be applied elsewhere, and is not here: a new region may
    /// have a leader already.
    ///
    /// Those of earlier leaders, itself among them, are applied before it serves a read: they precede the first entry
    /// of its term.
    pub(super) fn may_have_lost_keys(&self) -> bool {
        let (term, index) = self.splitting.proposed;
        term == self.group.term() && self.applied.index < index
    }

    /// Whether a restart needs this replica: it would make regions whose descriptors tables do not hold, or its own
    /// descriptor comes from a split that would be applied again.
    pub fn waits_for_flush(&self) -> bool {
        self.needs_log() || self.made_by != 0
    }

    /// Whether a restart would apply a split, or the commit of a merge, again.
    pub fn needs_log(&self) -> bool {
        self.splitting.handed > self.flushed
    }
}
