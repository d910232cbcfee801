//! Whether this directory may take part in consensus: this check prevents a store that lost its promises from voting as
//! if it had made none.
//!
//! Raft requires that a voter loses neither its votes nor the entries that it has acknowledged. A store whose disk was
//! replaced by an empty one, or by an older copy, has lost both, and could elect a leader that lacks acknowledged
//! writes. Therefore each directory has an [`Incarnation`], the members of a cluster record those of the others, and a
//! store takes part only when the others agree:
//!
//! 1. *Forming.* An empty directory of a cluster of several members sends [`Hello`] to the others. The member with the
//!    lowest id, the founder, decides which directories form the cluster, when all members with replicas have reported
//!    that their directories are empty, too. The others follow its decision if it contains their own incarnation. One
//!    empty directory among others that are not empty can therefore never form a cluster.
//! 2. *Replaced.* An empty directory that receives a hello of a member which knows another incarnation of this store,
//!    or none, has lost its data. It does not take part: it has no replica, gives no votes and acknowledges nothing.
//! 3. *Confirming.* A directory that has been a member before starts only when a majority of the members with replicas
//!    has recorded its present generation. A generation is counted at each start, and every [`GENERATION_INTERVAL`]
//!    while it runs. If a member knows a later generation than the directory's own, this directory is an older copy:
//!    the node stops.
//! 4. *Member.* It takes part, and continues to send hellos, so that the others record its generations.
//! 5. *Replacing a lost directory.* If its operator states that the lost one will not come back
//!    (`--replace-lost-directory`), an empty directory joins the cluster without replicas, as the next *replacement* of
//!    its store's directory; but only after hellos of a majority of the members with replicas that have their data.
//!    While only one member is left, two directories that are temporarily unavailable can therefore never be replaced.
//!    The others record the new directory instead of the one that they knew, which is refused from then on, and the
//!    leaders of regions remove the lost directory's replicas and add new ones (`replacement.rs`). The order of these
//!    steps does not matter: the new directory has other replicas than the lost one (`kontiki_raftstore::replica_id`).
//!
//! 6. *Lost stores.* After an unsafe recovery (`lost_stores.rs`) the stores that it names do not count for 3 and 5
//!    until another directory has replaced theirs. The others record them as replaced by a directory that does not
//!    exist: the lost one stops when it hears from any of them. Directories that are left must say the same of lost
//!    stores; one that says less, or something else with the same number, stops.
//!
//! The limit of 3: an older copy that is younger than the last generation is not recognised, nor is one whose later
//! generations only members know that cannot be reached. *Rejected:* waiting for all members at each start, which lets
//! one dead node block every restart of another; log positions instead of generations, because they may legally go
//! back.
//!
//! Pure: no clock, file or thread; `formation.rs` performs what it decides.

use super::recovery_record::RecoveryRecord;
use kontiki_raftstore::StoreId;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often a running member begins a new generation: bounds the age of a copy that is not recognised as one, at the
/// cost of a synced write of some bytes.
pub(super) const GENERATION_INTERVAL: Duration = Duration::from_secs(600);
/// How often a node sends hellos while it may not take part yet: a start waits for one round trip, and a lost message
/// delays it by this much.
const HELLO_INTERVAL_WAITING: Duration = Duration::from_millis(200);
/// How often a member, or a replaced directory, sends hellos.
const HELLO_INTERVAL_SETTLED: Duration = Duration::from_secs(5);

/// How much higher a lost store's replacement counts than the last that is known here: there may have been others.
const LOST_REPLACEMENTS: u64 = 1 << 16;

/// The identity of a store's directory, and its generation.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Incarnation {
    /// Drawn at random when the directory was created; not 0.
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    /// Counts starts, and intervals between them; from 1.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    /// Drawn at random for this generation: distinguishes two copies of a directory with the same count.
    #[prost(fixed64, tag = "3")]
    pub mark: u64,
    /// How many directories of this store were lost before this one.
    #[prost(uint64, tag = "4")]
    pub replacement: u64,
}

impl Incarnation {
    /// The record of a directory before its first hello.
    pub fn first(id: u64) -> Incarnation {
        Incarnation { id, ..Incarnation::default() }
    }

    /// The record of a store whose directory, of which `known` is the last record, is stated to be lost: it is replaced
    /// by one that does not exist, and has no generation.
    pub fn lost(known: Option<Incarnation>) -> Incarnation {
        let known = known.unwrap_or_default();
        let replacement = known.replacement.saturating_add(LOST_REPLACEMENTS);
        Incarnation { id: (!known.id).max(1), generation: 0, mark: 0, replacement }
    }

    /// Whether it is such a record.
    pub fn is_lost(&self) -> bool {
        self.generation == 0 && self.replacement > 0
    }

    /// Whether `self` is the directory `other` in the same generation or a later one.
    fn follows(&self, other: &Incarnation) -> bool {
        self.id == other.id && (self.generation > other.generation || self == other)
    }

    /// Whether `self` replaces the lost directory `other`.
    fn replaces(&self, other: &Incarnation) -> bool {
        self.id != other.id && self.replacement > other.replacement
    }
}

/// What a node reports of itself to another.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Hello {
    /// Its directory.
    #[prost(message, required, tag = "1")]
    pub own: Incarnation,
    /// Whether it belongs to a cluster that has been formed.
    #[prost(bool, tag = "2")]
    pub formed: bool,
    /// With `formed`: the directories that it knows as members, its own among them.
    #[prost(btree_map = "uint64, fixed64", tag = "3")]
    pub members: BTreeMap<u64, u64>,
    /// What it has recorded of the receiver.
    #[prost(message, optional, tag = "4")]
    pub you: Option<Incarnation>,
    /// Whether the receiver should send a hello in return.
    #[prost(bool, tag = "5")]
    pub wants_answer: bool,
    /// With `formed`: whether it has a replica of every region that belongs on it.
    #[prost(bool, tag = "6")]
    pub has_data: bool,
    /// With `formed`: what its directory says of an unsafe recovery.
    #[prost(message, optional, tag = "7")]
    pub recovery: Option<RecoveryRecord>,
    /// With `formed`: the stores that are lost and have no other directory yet.
    #[prost(btree_map = "uint64, message", tag = "8")]
    pub lost: BTreeMap<u64, Incarnation>,
}

/// Whether this node takes part in consensus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipState {
    /// The directory is empty, and the cluster is not formed yet: these members have not sent a hello.
    Forming {
        /// Members whose hello is missing.
        waiting_for: Vec<StoreId>,
    },
    /// The directory belonged to a member; a majority has to confirm that it is not an older copy.
    Confirming,
    /// Takes part.
    Member,
    /// The directory is empty, but the cluster exists: this store's data was lost.
    Replaced {
        /// The member that reported this.
        reported_by: StoreId,
    },
}

/// The consequences of a hello.
#[derive(Debug, Default, PartialEq)]
pub(super) struct HelloOutcome {
    /// Send a hello in return.
    pub answer: bool,
    /// Record this incarnation of the sender, durably.
    pub record: Option<Incarnation>,
    /// Write the first state of the cluster, with these directories as members, then call [`Membership::formed`].
    pub form: Option<BTreeMap<StoreId, u64>>,
    /// Join the cluster without replicas, durably, as the replacement of a lost directory; then call
    /// [`Membership::joined`].
    pub join: Option<Join>,
    /// This directory is an older copy: the sender knows the given, later incarnation. Stop.
    pub outdated_by: Option<Incarnation>,
    /// Another directory has replaced this one: stop.
    pub is_replaced: bool,
    /// This store was stated to be lost, and the cluster recovered without it: stop.
    pub is_lost: bool,
    /// The sender's directory says this of lost stores, and this one says less or something else: stop.
    pub recovery_differs: Option<RecoveryRecord>,
}

/// How an empty directory joins.
#[derive(Debug, PartialEq)]
pub(super) struct Join {
    /// The directories of the others.
    pub members: BTreeMap<StoreId, u64>,
    /// The stores among them that are lost and have no other directory yet.
    pub lost: BTreeMap<StoreId, Incarnation>,
    /// What the others' directories say of an unsafe recovery.
    pub recovery: RecoveryRecord,
    /// This directory's new incarnation.
    pub own: Incarnation,
}

/// The state of the check. See the module's documentation.
pub(super) struct Membership {
    store: StoreId,
    own: Incarnation,
    /// Members with replicas in the first state, ascending.
    voters: Vec<StoreId>,
    /// All members but this one.
    others: Vec<StoreId>,
    state: MembershipState,
    /// Whether this directory, if it is empty, may replace a lost one.
    may_replace: bool,
    /// Formed members with all their data from which an empty directory has received a hello.
    whole: BTreeSet<StoreId>,
    /// The records of other members.
    known: BTreeMap<StoreId, Incarnation>,
    /// Empty directories that have sent a hello.
    empty: BTreeMap<StoreId, u64>,
    /// Members that have recorded this directory's present generation.
    confirmed: BTreeSet<StoreId>,
    /// What this directory says of an unsafe recovery.
    recovery: RecoveryRecord,
    hello_at: Duration,
}

impl Membership {
    /// At a start. `is_formed`: the directory belongs to a cluster. `members` are all of the configuration, ascending;
    /// `voters` those with replicas in the first state.
    pub fn new(
        store: StoreId,
        own: Incarnation,
        is_formed: bool,
        members: Vec<StoreId>,
        voters: Vec<StoreId>,
        known: BTreeMap<StoreId, Incarnation>,
    ) -> Membership {
        assert!(own.id != 0 && own.generation != 0, "an incarnation is not zero");
        assert!(members.contains(&store) && voters.iter().all(|voter| members.contains(voter)));
        let others = members.into_iter().filter(|other| *other != store).collect();
        let state =
            if is_formed { MembershipState::Confirming } else { MembershipState::Forming { waiting_for: Vec::new() } };
        let mut membership = Membership {
            store,
            own,
            voters,
            others,
            state,
            known,
            may_replace: false,
            whole: BTreeSet::new(),
            empty: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            recovery: RecoveryRecord::default(),
            hello_at: Duration::ZERO,
        };
        membership.count_answers();
        membership
    }

    /// The operator states that the lost directory of this store will not come back.
    pub fn may_replace_a_lost_one(mut self) -> Membership {
        self.may_replace = true;
        self
    }

    /// What the directory says of an unsafe recovery.
    pub fn after(mut self, recovery: RecoveryRecord) -> Membership {
        self.recovery = recovery;
        self
    }

    /// What the directory says of an unsafe recovery.
    pub fn recovery(&self) -> &RecoveryRecord {
        &self.recovery
    }

    /// Whether a store is lost and has no other directory yet.
    fn is_lost(&self, store: StoreId) -> bool {
        self.known.get(&store).is_some_and(Incarnation::is_lost)
    }

    /// The directory of another store if it replaced a lost one.
    pub fn replacement_of(&self, store: StoreId) -> Option<u64> {
        self.known.get(&store).filter(|known| known.replacement > 0 && !known.is_lost()).map(|known| known.id)
    }

    /// The present directory of a store, as far as it is known.
    pub fn directory_of(&self, store: StoreId) -> Option<u64> {
        if store == self.store { Some(self.own.id) } else { self.known.get(&store).map(|known| known.id) }
    }

    /// Whether any store's directory replaced a lost one.
    pub fn knows_replacements(&self) -> bool {
        self.known.values().any(|known| known.replacement > 0)
    }

    pub fn state(&self) -> &MembershipState {
        &self.state
    }

    pub fn is_member(&self) -> bool {
        self.state == MembershipState::Member
    }

    pub fn own(&self) -> Incarnation {
        self.own
    }

    pub fn others(&self) -> &[StoreId] {
        &self.others
    }

    /// The next generation has become durable.
    pub fn renewed(&mut self, own: Incarnation) {
        assert!(own.follows(&self.own), "generations increase");
        self.own = own;
    }

    /// Whether it is time to send hellos to all others; sets the next time.
    pub fn hello_due(&mut self, now: Duration) -> bool {
        if now < self.hello_at {
            return false;
        }
        let waits = matches!(self.state, MembershipState::Forming { .. } | MembershipState::Confirming);
        self.hello_at = now + if waits { HELLO_INTERVAL_WAITING } else { HELLO_INTERVAL_SETTLED };
        true
    }

    /// The hello for another member.
    pub fn hello(&self, to: StoreId, wants_answer: bool) -> Hello {
        let formed = self.is_formed();
        let members = self.known.iter().map(|(store, known)| (store.0, known.id));
        let members = members.chain([(self.store.0, self.own.id)]).filter(|_| formed).collect();
        let lost = self.known.iter().filter(|(_, known)| formed && known.is_lost());
        Hello {
            own: self.own,
            formed,
            members,
            you: self.known.get(&to).copied(),
            wants_answer,
            has_data: formed,
            recovery: Some(self.recovery.clone()).filter(|recovery| formed && recovery.number > 0),
            lost: lost.map(|(store, known)| (store.0, *known)).collect(),
        }
    }

    /// Handles a hello of another member.
    pub fn handle_hello(&mut self, from: StoreId, hello: &Hello) -> HelloOutcome {
        let mut outcome = HelloOutcome { answer: hello.wants_answer, ..HelloOutcome::default() };
        if !self.others.contains(&from) || hello.own.id == 0 || hello.own.generation == 0 {
            return HelloOutcome::default();
        }
        if !self.is_formed() {
            self.handle_unformed(from, hello, &mut outcome);
            return outcome;
        }
        if !hello.formed {
            // An empty directory: our answer lets it decide whether it belongs to the cluster.
            return outcome;
        }
        if self.is_lost(from) && !self.known.get(&from).is_some_and(|known| hello.own.replaces(known)) {
            // The lost directory. Our answer stops it, and nothing that it says counts; unless it was recovered, too,
            // and is not lost for those who believe it. Then not both are right, and neither goes on by itself.
            let theirs = hello.recovery.clone().filter(|theirs| theirs.number >= self.recovery.number);
            let recovery_differs = theirs.filter(|theirs| !theirs.agrees(&self.recovery));
            return HelloOutcome { answer: true, recovery_differs, ..HelloOutcome::default() };
        }
        if let Some(differs) = self.compare_recovery(hello) {
            return HelloOutcome { answer: true, recovery_differs: differs, ..HelloOutcome::default() };
        }
        match self.known.get(&from) {
            Some(known) if hello.own.replaces(known) => {
                outcome.record = Some(hello.own);
                self.known.insert(from, hello.own);
                self.confirmed.remove(&from);
            }
            // A replaced directory or an older copy, unless the hello was delayed. Our answer informs the sender.
            Some(known) if !hello.own.follows(known) => outcome.answer = true,
            Some(known) if *known == hello.own => {}
            _ => {
                outcome.record = Some(hello.own);
                self.known.insert(from, hello.own);
            }
        }
        match hello.you {
            Some(you) if you.id == self.own.id && !self.own.follows(&you) => outcome.outdated_by = Some(you),
            Some(you) if you.replaces(&self.own) => {
                (outcome.is_replaced, outcome.is_lost) = (!you.is_lost(), you.is_lost());
            }
            Some(you) if you == self.own => {
                self.confirmed.insert(from);
                self.count_answers();
            }
            // Not yet our present generation, or a directory that this store had when another cluster was formed.
            _ => {}
        }
        outcome
    }

    /// The first state is durable: the directory belongs to the cluster that `members` form, and has made no promise.
    pub fn formed(&mut self, members: &BTreeMap<StoreId, u64>) {
        assert!(!self.is_formed(), "a directory joins a cluster once");
        self.begin(members, MembershipState::Member);
    }

    /// The directory belongs to the cluster, as the replacement of a lost one; the others have yet to record it.
    pub fn joined(&mut self, join: &Join) {
        assert!(!self.is_formed() && join.own.id == self.own.id, "a directory joins a cluster once");
        (self.own, self.recovery) = (join.own, join.recovery.clone());
        self.begin(&join.members, MembershipState::Confirming);
        self.known.extend(join.lost.iter().map(|(store, lost)| (*store, *lost)));
    }

    fn begin(&mut self, members: &BTreeMap<StoreId, u64>, state: MembershipState) {
        let others = members.iter().filter(|(store, _)| **store != self.store);
        self.known = others.map(|(store, id)| (*store, Incarnation::first(*id))).collect();
        self.state = state;
        self.hello_at = Duration::ZERO;
    }

    /// `Some` if the sender's directory says something else of lost stores: with what it says if this directory is the
    /// one that has to stop. A directory that says more is right, because the other was not recovered yet.
    fn compare_recovery(&self, hello: &Hello) -> Option<Option<RecoveryRecord>> {
        let theirs = hello.recovery.clone().unwrap_or_default();
        let gives_this_up = hello.you.is_some_and(|you| you.replaces(&self.own));
        if theirs.agrees(&self.recovery) || gives_this_up {
            return None;
        }
        Some((theirs.number >= self.recovery.number).then_some(theirs))
    }

    fn is_formed(&self) -> bool {
        matches!(self.state, MembershipState::Confirming | MembershipState::Member)
    }

    fn is_voter(&self) -> bool {
        self.voters.contains(&self.store)
    }

    fn handle_unformed(&mut self, from: StoreId, hello: &Hello, outcome: &mut HelloOutcome) {
        if hello.formed {
            let members: BTreeMap<_, _> = hello.members.iter().map(|(store, id)| (StoreId(*store), *id)).collect();
            let lost = hello.lost.iter().map(|(store, lost)| (StoreId(*store), *lost));
            let lost: BTreeMap<StoreId, Incarnation> = lost.filter(|(store, _)| *store != self.store).collect();
            let recovery = hello.recovery.clone().unwrap_or_default();
            // One that the sender does not know has lost nothing; one without first regions may have got replicas.
            let is_unknown = !self.is_voter() && hello.you.is_none_or(|you| you.id == self.own.id);
            if is_unknown && recovery.number > 0 {
                outcome.join = Some(Join { members, lost, recovery, own: self.own });
                return;
            }
            if is_unknown || members.get(&self.store) == Some(&self.own.id) {
                outcome.form = Some(members);
                return;
            }
            self.state = MembershipState::Replaced { reported_by: from };
            if hello.has_data && self.voters.contains(&from) {
                self.whole.insert(from);
            } else {
                self.whole.remove(&from);
            }
            let counted = self.voters.iter().filter(|voter| !hello.lost.contains_key(&voter.0)).count();
            if self.whole.len() <= counted / 2 {
                return;
            }
            // The sender knows this store's earlier directory, so it knows how many there were.
            if let Some(earlier) = hello.you.filter(|_| self.may_replace) {
                let own = Incarnation { replacement: earlier.replacement + 1, ..self.own };
                outcome.join = Some(Join { members, lost, recovery, own });
            }
            return;
        }
        self.empty.insert(from, hello.own.id);
        let MembershipState::Forming { waiting_for } = &mut self.state else { return };
        *waiting_for = missing(&self.voters, self.store, &self.empty);
        let is_founder = self.voters.first() == Some(&self.store);
        outcome.form = (is_founder && waiting_for.is_empty()).then(|| self.first_members());
    }

    /// The directories that form the cluster, as reported to the founder.
    pub fn first_members(&self) -> BTreeMap<StoreId, u64> {
        let id =
            |voter: &StoreId| if *voter == self.store { Some(self.own.id) } else { self.empty.get(voter).copied() };
        self.voters.iter().filter_map(|voter| Some((*voter, id(voter)?))).collect()
    }

    /// Checks whether enough members have answered.
    fn count_answers(&mut self) {
        let is_lost = |voter: &StoreId| self.known.get(voter).is_some_and(Incarnation::is_lost);
        match &mut self.state {
            MembershipState::Forming { waiting_for } => *waiting_for = missing(&self.voters, self.store, &self.empty),
            MembershipState::Confirming => {
                let counted: Vec<_> = self.voters.iter().filter(|voter| !is_lost(voter)).collect();
                let confirmed = counted.iter().filter(|voter| self.confirmed.contains(voter)).count();
                // A member without first regions may have got replicas since.
                if usize::from(self.is_voter()) + confirmed > counted.len() / 2 {
                    self.state = MembershipState::Member;
                }
            }
            MembershipState::Member | MembershipState::Replaced { .. } => {}
        }
    }
}

fn missing(voters: &[StoreId], own: StoreId, known: &BTreeMap<StoreId, u64>) -> Vec<StoreId> {
    voters.iter().copied().filter(|voter| *voter != own && !known.contains_key(voter)).collect()
}

#[cfg(test)]
#[path = "membership_test.rs"]
mod tests;
