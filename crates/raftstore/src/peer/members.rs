//! Changes of a region's replicas, one at a time.
//!
//! A change is a separate log entry. The core uses the new configuration from the moment at which the entry is handed
//! out for apply (`members`); the descriptor that readers see follows when the apply is visible (`region`).
//!
//! # Why a replica never stands for election with a configuration that is two changes old
//!
//! Configurations that are one change apart have a voter in common in any two of their majorities, so a leader elected
//! by either has all that is committed by the other. Configurations that are two changes apart may not. After a crash a
//! replica's configuration is that of its flushed data, and its log may hold any number of later changes. But:
//!
//! 1. A leader proposes a change only when it has applied the one before, so a message with an entry of change k + 1
//!    implies that change k is committed. Both are recorded in one persist (`take_ready` sets the state blob dirty with
//!    every such entry).
//! 2. The core does not stand for election while a change that it knows to be committed is not applied.
//!
//! A replica whose log holds change k + 1 therefore applies change k first, after a restart, too. A replica whose log
//! does not hold it cannot win: the entry is on a majority of the previous configuration, which has a voter in common
//! with any majority of the configuration before that, and the log of this voter is newer. *Rejected:* taking the
//! configuration of the last entry in the log whether committed or not (what the core does when it is overwritten
//! differs); the configuration in the state blob (a second place for what the descriptor says, and recovery would have
//! to skip changes that it meets again).
//!
//! The same overlap keeps leases apart: a leader's configuration is never older than that of a candidate, and at most
//! one change newer.
//!
//! # A replica that is removed
//!
//! When it applies the change, it destroys itself (`store/destroy.rs`). The others send it no further messages and
//! ignore its vote requests, so one that was away does not learn of its removal; it does not know the configuration and
//! cannot win.

use super::Peer;
use crate::meta::put_region;
use crate::outbox::Outbox;
use crate::region::{self, MemberChange, PeerId, Region};
use std::sync::Arc;

/// Addresses of peers that only newer descriptors name: more than a region ever has at once.
const STRANGERS_MAX: usize = 16;

impl Peer {
    /// A committed change is applied.
    pub(super) fn change_members(
        &mut self,
        index: u64,
        change: MemberChange,
        changed: Region,
        out: &mut Outbox,
    ) -> Result<(), String> {
        if changed.peer(self.me.id).is_none() {
            // The core is not used any more: as a leader it could go on.
            self.be_removed(out);
        } else {
            self.group.apply_change(change)?;
            // That it is committed is recorded: after a restart of all that are left, the one that was removed cannot
            // vote any more.
            self.state_dirty = true;
        }
        tracing::info!(region = self.region.id.0, index, "members changed: {change:?}");
        let changed = Arc::new(changed);
        self.members = changed.clone();
        self.strangers.retain(|id, _| changed.peer(*id).is_none());
        put_region(self.families.meta, &mut out.apply, &changed);
        self.changes.push_back((index, changed));
        Ok(())
    }

    /// The address of a peer.
    pub(super) fn address(&self, id: PeerId) -> Option<region::Peer> {
        self.members.peer(id).or_else(|| self.strangers.get(&id).copied())
    }

    /// Whether to listen to a peer that has this `conf_version`. A peer that is not in this replica's descriptor is
    /// listened to if its own descriptor is newer: it may lead, and its messages bring this replica up to date.
    /// Otherwise it was removed.
    pub(super) fn knows(&mut self, from: region::Peer, conf_version: u64) -> bool {
        if self.members.peers.contains(&from) {
            return true;
        }
        let may_be_newer = conf_version > self.members.epoch.conf_version && self.members.peer(from.id).is_none();
        if may_be_newer && (self.strangers.len() < STRANGERS_MAX || self.strangers.contains_key(&from.id)) {
            self.strangers.insert(from.id, from);
            return true;
        }
        false
    }
}
