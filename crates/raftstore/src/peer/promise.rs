//! The promise behind a leader's lease: *this replica votes for no replica, itself included, before time `until` of its
//! own clock, except for the target of a transfer that the leader itself ordered.*
//!
//! Every acknowledgement of a heartbeat makes one, in clock time, and says how long it is. It is made when the
//! heartbeat is handled, and checked before a vote request or an order to campaign reaches the core and before a tick
//! may begin an election; pre-votes promise nothing, but are not given either, because the election after them could
//! not be won. The proof does not rely on the core's own reasons not to vote (a known leader, ticks since its last
//! message): the core forgets its leader whenever any message of a higher term arrives, and ticks do not measure time.
//!
//! # Why two leases never hold at once
//!
//! Let L lead in term T and hold a lease at a true moment m, and let another replica lead in a term T' > T. The lease
//! rests on a quorum of acknowledgements ([`super::lease`]), T' on a quorum of votes; some replica p is in both. Let s
//! be the true moment at which L stamped the heartbeat that p acknowledged, a the moment at which p handled it, v the
//! moment at which p's vote in T' was sent.
//!
//! 1. a <= v: at a, p was in term T; a vote for T' puts its term at T', and terms never go back.
//! 2. v is not before the promise's end. It is checked before any vote, and only a transfer shortens it (3). If p is
//!    restarted between a and v, it has forgotten the promise, but knows from its state blob how long promises of its
//!    earlier processes can be (`recorded`: durable before the first promise of that length is made), and begins with a
//!    promise of that length, counted from a moment after a.
//! 3. Transfers are numbered within a term. L's heartbeats say through which number they are void, the acknowledgement
//!    returns it, and the lease counts only acknowledgements that know every transfer ordered so far to be void. p
//!    votes before its promise's end only for a transfer of the leader that holds the promise (the request's term minus
//!    one) whose number is above the highest that p knows to be void. A request of a transfer ordered before a
//!    therefore gets no vote from the lease's quorum, however late it arrives; and when L orders another one, it has no
//!    lease from then on. A restarted p knows no number and grants no exception until it has acknowledged a heartbeat
//!    again.
//! 4. p's clock shows at least `promise` passing between a and v: the time by which a promise is counted was read after
//!    the heartbeat had arrived, the time by which a vote is checked before the vote is sent. Reading the clock once
//!    for several messages, or late handling of any of them, therefore only lengthens the promise. With rates off by at
//!    most d that is a true time of at least `promise / (1 + d)`, and s <= a.
//! 5. L's lease ends when L's clock shows s + lease, with lease <= promise * (1 - d) / (1 + d): a true time of at most
//!    lease / (1 - d) <= promise / (1 + d) after s. L's clock was read before the heartbeat was sent.
//!
//! So m < s + promise / (1 + d) <= a + promise / (1 + d) <= v: when L holds its lease, the leader of T' does not have
//! p's vote yet and can have acknowledged nothing. It follows that a promise to the leader of an older term has no
//! effect once p acknowledges a newer one, so one `until` is enough, and a vote given for a transfer ends the promise.

use crate::config::Config;
use crate::consensus::step::Transfer;
use crate::effect::PersistId;
use crate::planted::Planted;
use std::time::Duration;

#[derive(Default)]
pub(super) struct Promise {
    /// The term of the leader whose heartbeat this process acknowledged last; 0 if it acknowledged none.
    term: u64,
    /// The leader's transfers through this number are void.
    void_through: u64,
    until: Duration,
    /// What an earlier process may have promised; counted from the first time that this process reads.
    forgotten: Option<Duration>,
    /// The end of that.
    forgotten_until: Duration,
    /// No promise is longer than this, which is durable.
    recorded: Duration,
    /// What `recorded` becomes when the persist is durable.
    recording: Option<(PersistId, Duration)>,
    /// A heartbeat was acknowledged with less than the whole promise.
    fell_short: bool,
    /// Only with the planted bug that counts promises in ticks.
    ticks: u64,
    until_tick: u64,
    planted: Planted,
}

impl Promise {
    /// The state after a start, from the state blob.
    pub fn recovered(recorded: Duration, planted: Planted) -> Promise {
        let forgotten = Some(recorded).filter(|_| !planted.vote_at_once_after_restart);
        Promise { recorded, forgotten, planted, ..Promise::default() }
    }

    /// Whether this replica never promised anything, in this process or an earlier one.
    pub fn never_made(&self) -> bool {
        self.recorded.is_zero() && self.recording.is_none()
    }

    pub fn tick(&mut self) {
        self.ticks += 1;
    }

    /// Whether a promise forbids votes at `now`.
    pub fn holds(&mut self, now: Duration, leader_is_known: bool) -> bool {
        if let Some(length) = self.forgotten.take() {
            self.forgotten_until = now + length;
        }
        let made = if self.planted.promise_in_ticks { self.ticks < self.until_tick } else { now < self.until };
        let made = made && (leader_is_known || !self.planted.promise_while_leader_known);
        made || now < self.forgotten_until
    }

    /// Whether the leader that holds the promise has itself ordered this election.
    pub fn excepts(&self, transfer: Transfer) -> bool {
        self.term > 0 && transfer.term == self.term && transfer.number > self.void_through
    }

    /// Whether this transfer is known to be void.
    pub fn knows_void(&self, transfer: Transfer) -> bool {
        transfer.term == self.term && transfer.number <= self.void_through
    }

    /// How long the next promise is.
    pub fn length(&self, config: &Config) -> Duration {
        let in_ticks = if self.planted.promise_in_ticks { config.tick_interval } else { Duration::ZERO };
        (config.promise_duration() - in_ticks).min(self.recorded)
    }

    /// A heartbeat of this term's leader is acknowledged with a promise of `length`.
    pub fn make(&mut self, term: u64, void_through: u64, now: Duration, length: Duration, config: &Config) {
        assert!(term >= self.term && length <= self.recorded, "what is promised is recorded, by the newest leader");
        if term > self.term {
            (self.term, self.void_through) = (term, 0);
        }
        self.void_through = self.void_through.max(void_through);
        self.until = self.until.max(now + length);
        self.until_tick = self.ticks + config.election_ticks as u64;
        self.fell_short |= length < config.promise_duration();
    }

    /// A vote was given: the earlier promise has ended, or its leader released it.
    pub fn release(&mut self) {
        (self.until, self.forgotten_until, self.until_tick) = (Duration::ZERO, Duration::ZERO, 0);
    }

    /// The bound that must be recorded, if it changes. It is raised before the first promise that needs it, and lowered
    /// when no longer promise is left.
    pub fn due_record(&mut self, now: Duration, config: &Config) -> Option<Duration> {
        let wanted = config.promise_duration();
        let raise = self.fell_short && self.recorded < wanted;
        let lower = self.recorded > wanted
            && self.forgotten.is_none()
            && self.until.max(self.forgotten_until) <= now.saturating_add(wanted);
        (self.recording.is_none() && (raise || lower)).then_some(wanted)
    }

    pub fn record(&mut self, length: Duration, persist: PersistId) {
        assert!(self.recording.is_none(), "one at a time");
        self.recording = Some((persist, length));
        // A lower bound takes effect at once.
        self.recorded = self.recorded.min(length);
        self.fell_short = false;
    }

    /// For the state blob.
    pub fn to_state(&self) -> u64 {
        let length = self.recording.map_or(self.recorded, |(_, length)| length);
        u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Everything through `persist` is durable.
    pub fn persisted(&mut self, persist: PersistId) {
        if let Some((_, length)) = self.recording.take_if(|(recording, _)| *recording <= persist) {
            self.recorded = length;
        }
    }
}

#[cfg(test)]
#[path = "promise_test.rs"]
mod tests;
