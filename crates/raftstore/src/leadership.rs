//! Which stores lead, as far as it does not depend on the region: the state of this store, and what the others say.
//!
//! A store takes no leadership while its log cannot be written, and none any more when its process is about to end. It
//! says so in every message to another store, with its priority: leaders move to the store with the highest one among
//! those that are able to lead (`peer/leader_transfer.rs`). Nothing here affects safety: what is known of other stores
//! may be old.

use crate::config::SlowLog;
use crate::consensus::wire::StoreMessage;
use crate::log_speed::LogSpeed;
use crate::region::StoreId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Leadership {
    unwritable: bool,
    /// When this store was asked to stop leading.
    stopping_since: Option<Duration>,
    own_priority: i32,
    pub log_speed: LogSpeed,
    /// How long a write of the log takes at other stores.
    log_writes: BTreeMap<StoreId, Duration>,
    /// Other stores with a slow log.
    slow: BTreeSet<StoreId>,
    /// Other stores that said in their last message that they take no leadership.
    unable: BTreeSet<StoreId>,
    /// Of other stores; those with priority 0 are left out.
    priorities: BTreeMap<StoreId, i32>,
    /// Other stores that execute the commands that compare replicas.
    comparing: BTreeSet<StoreId>,
    /// Stores that know of roles, as their last messages said.
    knowing_roles: BTreeSet<StoreId>,
    /// Stores that execute merges.
    knowing_merges: BTreeSet<StoreId>,
    knowing_gc: BTreeSet<StoreId>,
    /// Stores that take part in safe timestamps.
    knowing_safe_ts: BTreeSet<StoreId>,
    /// Other stores that are probably dead.
    silent: BTreeSet<StoreId>,
    /// Transfers that may still begin with this tick.
    transfers_left: usize,
}

impl Leadership {
    pub fn new(own_priority: i32, slow_log: SlowLog) -> Leadership {
        Leadership { own_priority, log_speed: LogSpeed::new(slow_log), ..Leadership::default() }
    }

    /// Whether replicas of this store may campaign.
    pub fn is_able(&self) -> bool {
        !self.unwritable && self.stopping_since.is_none()
    }

    /// The log can be written from now on, or it cannot.
    pub fn set_writable(&mut self, writable: bool) {
        self.unwritable = !writable;
    }

    pub fn is_writable(&self) -> bool {
        !self.unwritable
    }

    /// The process is about to end.
    pub fn stop(&mut self, now: Duration) {
        self.stopping_since.get_or_insert(now);
    }

    pub fn stopping_since(&self) -> Option<Duration> {
        self.stopping_since
    }

    /// What every message to another store says.
    pub fn message(&self) -> StoreMessage {
        StoreMessage {
            unable_to_lead: !self.is_able(),
            leader_priority: self.own_priority,
            can_compare: true,
            can_compare_expiring: true,
            knows_roles: true,
            knows_merges: true,
            knows_gc: true,
            knows_safe_ts: true,
            ..StoreMessage::default()
        }
    }

    /// A sign of life of this process.
    pub fn sign_of_life(&self, process: u64) -> StoreMessage {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1);
        StoreMessage {
            alive: process,
            log_write_us: self.log_speed.average().map_or(0, micros),
            log_is_slow: self.log_speed.is_slow(),
            ..self.message()
        }
    }

    /// What a sign of life of another store says of its log.
    fn learn_log(&mut self, message: &StoreMessage) {
        let store = StoreId(message.from_store);
        if message.log_write_us == 0 {
            self.log_writes.remove(&store);
        } else {
            self.log_writes.insert(store, Duration::from_micros(message.log_write_us.into()));
        }
        if message.log_is_slow {
            self.slow.insert(store);
        } else {
            self.slow.remove(&store);
        }
    }

    /// Judges the log of this store; `waiting`: for how long its oldest write that is not durable has waited. Returns
    /// whether the judgement has changed.
    pub fn judge_log(&mut self, now: Duration, waiting: Option<Duration>) -> bool {
        let lives = |(store, _): &(&StoreId, &Duration)| !self.silent.contains(store);
        let others = self.log_writes.iter().filter(lives).map(|(_, time)| *time).collect();
        self.log_speed.tick(now, waiting, others)
    }

    /// Whether the log of another store is slow.
    pub fn is_slow_elsewhere(&self, store: StoreId) -> bool {
        self.slow.contains(&store)
    }

    /// What a message of another store says.
    pub fn learn(&mut self, message: &StoreMessage) {
        let store = StoreId(message.from_store);
        if message.alive != 0 {
            self.learn_log(message);
        }
        for (stores, says) in [
            (&mut self.comparing, message.can_compare_expiring),
            (&mut self.knowing_roles, message.knows_roles),
            (&mut self.knowing_merges, message.knows_merges),
            (&mut self.knowing_gc, message.knows_gc),
            (&mut self.knowing_safe_ts, message.knows_safe_ts),
            (&mut self.unable, message.unable_to_lead),
        ] {
            if says {
                stores.insert(store);
            } else {
                stores.remove(&store);
            }
        }
        if message.leader_priority == 0 {
            self.priorities.remove(&store);
        } else {
            self.priorities.insert(store, message.leader_priority);
        }
    }

    pub fn is_able_elsewhere(&self, store: StoreId) -> bool {
        !self.unable.contains(&store)
    }

    /// Whether a store executes the commands that compare replicas with keys that expire: an earlier one would stop.
    pub fn can_compare_expiring(&self, store: StoreId) -> bool {
        self.comparing.contains(&store)
    }

    /// Whether a store knows that replicas have roles: an earlier version takes all of them for voters.
    pub fn knows_roles(&self, store: StoreId) -> bool {
        self.knowing_roles.contains(&store)
    }

    /// Whether a store executes merges: an earlier version would stop.
    pub fn knows_merges(&self, store: StoreId) -> bool {
        self.knowing_merges.contains(&store)
    }

    /// Whether a store knows the GC safe point of a region: an earlier version would stop.
    pub fn knows_gc(&self, store: StoreId) -> bool {
        self.knowing_gc.contains(&store)
    }

    /// Whether a store understands messages about safe timestamps.
    pub fn knows_safe_ts(&self, store: StoreId) -> bool {
        self.knowing_safe_ts.contains(&store)
    }

    pub fn own_priority(&self) -> i32 {
        self.own_priority
    }

    pub fn priority(&self, store: StoreId) -> i32 {
        self.priorities.get(&store).copied().unwrap_or(0)
    }

    /// Replaces the set of stores that are probably dead. Returns whether it differs from the previous one.
    pub fn set_silent(&mut self, silent: &BTreeSet<StoreId>) -> bool {
        let differs = self.silent != *silent;
        if differs {
            self.silent.clone_from(silent);
        }
        differs
    }

    pub fn is_silent(&self, store: StoreId) -> bool {
        self.silent.contains(&store)
    }

    /// A tick begins, in which so many transfers may begin.
    pub fn begin_tick(&mut self, transfers_max: usize) {
        self.transfers_left = transfers_max;
    }

    /// Whether another transfer may begin; counts it.
    pub fn take_transfer(&mut self) -> bool {
        let permitted = self.transfers_left > 0;
        self.transfers_left = self.transfers_left.saturating_sub(1);
        permitted
    }
}

#[cfg(test)]
#[path = "leadership_test.rs"]
mod tests;
