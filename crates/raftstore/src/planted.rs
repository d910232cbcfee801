//! Bugs planted for the tests of the tests: each must be found by the harness or the simulator. Compiled in only with
//! the feature `planted-bugs`, and then still off until switched on.

use kontiki_engine::Family;

/// Which bugs a store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    /// A proposal is acknowledged when it is appended, before a quorum has it.
    pub acknowledge_before_quorum: bool,
    /// A replica that believes it leads serves reads without checking its lease.
    pub read_without_lease: bool,
    /// After a restart, entries that tables already hold are applied once more.
    pub apply_twice_after_restart: bool,
    /// A follower keeps its promise to a leader only as long as it knows that leader: any message of a higher term
    /// makes the consensus core forget it.
    pub promise_while_leader_known: bool,
    /// A follower counts its promise in ticks (and the leader takes `n` of them for `n - 1` intervals of a clock).
    pub promise_in_ticks: bool,
    /// A restarted follower votes at once, although it may have confirmed a leader's lease before.
    pub vote_at_once_after_restart: bool,
    /// A leader that orders a transfer keeps its lease.
    pub lease_through_transfer: bool,
    /// Snapshot files are named by their position alone, removals are carried out without another check, and a node
    /// without a file that it needs stops.
    pub snapshot_names_reused: bool,
    /// Followers accept appends without a limit, and committed entries are handed out without a limit.
    pub followers_unbounded: bool,
    /// The log is not retained for a snapshot in flight.
    pub log_not_held: bool,
    /// Snapshots lack this family.
    pub snapshot_without: Option<Family>,
    /// A lease begins when its confirmation arrives, not when the heartbeat was sent.
    pub lease_from_answer: bool,
    /// A read barrier is answered when a quorum has confirmed it, without regard to the applied index. The first thing
    /// a new leader applies, an entry of its own term, holds all that earlier leaders acknowledged, and this leader's
    /// own acknowledgements follow its applies; so the bug shows only together with its second half: a leader takes
    /// part in reads behind barriers before that entry is applied ([`crate::Readers::term_before_apply`]).
    pub barrier_before_apply: bool,
    /// A proposal is recognised at apply by its index alone, and stays when leadership ends. Without the second half
    /// the first is hidden: proposals above the commit index are answered when leadership ends, and those at or below
    /// it cannot lose their place.
    pub proposal_term_not_checked: bool,
    /// A changed term or vote is not persisted.
    pub vote_not_persisted: bool,
    /// Messages that promise durability are sent before the persist that they promise.
    pub messages_before_persist: bool,
    /// A new leader serves reads before an entry of its own term is applied.
    pub readable_at_once: bool,
    /// Entries that are committed while a snapshot is installed are applied at once.
    pub apply_beside_install: bool,
    /// A leader keeps its lease while a split of its region may be applied elsewhere and is not here.
    pub lease_through_split: bool,
    /// A snapshot may take the place of a split in the log whose regions tables do not hold yet.
    pub snapshot_in_place_of_split: bool,
    /// Entries behind a checksum command are handed out before its view is taken.
    pub checksum_beside_applies: bool,
    /// A leader that hibernates performs a request without waking up: what it sends is not repeated.
    pub hibernate_through_requests: bool,
    /// A learner's answers count for the leader's lease as those of a voter do.
    pub learner_in_quorum: bool,
    /// A joint configuration ends for the consensus core when it begins: the new voters decide alone.
    pub joint_left_at_once: bool,
    /// A sole voter sends entries before the term in which it leads is durable.
    pub lead_before_vote_is_durable: bool,
    /// The target of a merge does not wait until the source's replica on its store has everything.
    pub merge_without_tail: bool,
    /// The source of a merge gets the entries that it lacks once: a replica that is installing a snapshot then, and
    /// takes nothing, never gets them.
    pub merge_tail_once: bool,
    /// Entries leave the memory when they are handed out for apply, and not when they are applied.
    pub evict_handed_out: bool,
    /// A leader claims safe timestamps without having its leadership confirmed.
    pub safe_ts_unconfirmed: bool,
    /// A replica takes a safe timestamp for its own before it has applied the index that belongs to it.
    pub safe_ts_before_apply: bool,
    /// A learner is promoted whether or not it has caught up.
    pub promote_unseen: bool,
}
