//! Signs of life between stores, and the end of hibernation where the leader's store gives none (`peer/hibernate.rs`).
//! What else the store does when its own ability to lead changes, or that of others.

use super::Store;
use crate::config::Config;
use crate::consensus::wire::StoreMessage;
use crate::liveness::Liveness;
use crate::peer::Peer;
use crate::region::{RegionId, StoreId};
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Why a replica that hibernates is in the queue.
/// A later one replaces an earlier one: a store that is silent for a moment after its restart has forgotten what it led
/// all the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// The store started, and found it on its disk.
    Start,
    /// Its leader's store is silent.
    Silence,
    /// Its leader's store has started again.
    Restart,
}

/// The part of hibernation that concerns the store, and no single region.
pub(super) struct Hibernation {
    liveness: Liveness,
    /// Names this process of the store; never 0.
    process: u64,
    /// The stores with which this one shares a region; `None` if that may have changed.
    neighbours: Option<BTreeSet<StoreId>>,
    /// Replicas that get ticks soon: a few with each tick, so that thousands do not stand for election at once.
    waking: BTreeMap<RegionId, Cause>,
}

impl Hibernation {
    pub fn new(process: u64) -> Hibernation {
        let (liveness, neighbours, waking) = Default::default();
        Hibernation { liveness, process: process.max(1), neighbours, waking }
    }

    /// A replica came, went, or has other members.
    pub fn regions_changed(&mut self) {
        self.neighbours = None;
    }

    /// The number of replicas that wait for ticks.
    pub fn waking(&self) -> usize {
        self.waking.len()
    }

    pub fn is_alive(&self, store: StoreId, now: Duration, timeout: Duration) -> bool {
        self.liveness.is_alive(store, now, timeout)
    }

    /// Whether a follower knows a leader whose store gives signs of life.
    fn has_live_leader(&self, follower: &Peer, now: Duration, timeout: Duration) -> bool {
        follower.leader().is_some_and(|leader| self.is_alive(leader.store, now, timeout))
    }

    /// A request came for a replica that hibernates. A leader wakes up to perform it; a follower, if its leader cannot.
    pub fn wake_for_request(&self, peer: &mut Peer, now: Duration, config: &Config) {
        if peer.leads() {
            if !config.planted().hibernate_through_requests {
                peer.wake(now);
            }
        } else if !self.has_live_leader(peer, now, config.promise_duration()) {
            peer.wake_without_leader(now);
        }
    }
}

impl Store {
    /// A replica that was found at the start gets its ticks in turn.
    pub(super) fn begin_in_hibernation(&mut self, region: RegionId) {
        if self.config.hibernate_ticks > 0
            && let Some(peer) = self.peers.get_mut(&region).filter(|peer| !peer.is_sole_voter())
        {
            peer.begin_in_hibernation();
            self.hibernation.waking.insert(region, Cause::Start);
        }
    }

    /// One tick: signs of life are sent, and missed.
    pub(super) fn tick_hibernation(&mut self) {
        if self.config.hibernate_ticks == 0 {
            return;
        }
        if self.ticks.is_multiple_of(self.config.heartbeat_ticks as u64) {
            self.send_signs_of_life();
        }
        self.find_silent_stores();
        let (timeout, ticks) = (self.config.promise_duration(), self.config.election_ticks as u64);
        for store in self.hibernation.liveness.fallen_silent(self.out.now, timeout, self.ticks, ticks) {
            self.queue_followers_of(store, Cause::Silence);
        }
        self.check_membership();
        for (region, cause) in self.next_to_wake() {
            self.hibernation.waking.remove(&region);
            self.wake_in_turn(region, cause);
        }
    }

    /// A few replicas that hibernate ask whether they are still members, each once in `member_check_ticks`.
    fn check_membership(&mut self) {
        let (count, interval) = (self.peers.len() as u64, self.config.member_check_ticks);
        // The replicas whose share of the interval begins with this tick.
        let tick = self.ticks % interval;
        let turns = (tick * count / interval) as usize..((tick + 1) * count / interval) as usize;
        if !turns.is_empty() {
            let asked = self.peers.values().skip(turns.start).take(turns.len());
            asked.for_each(|peer| peer.ask_for_membership(&mut self.out));
        }
    }

    /// Those whose turn it is, and all that were asked for meanwhile.
    fn next_to_wake(&self) -> Vec<(RegionId, Cause)> {
        let mut turns = self.config.wake_regions_per_tick_max;
        let mut is_next = |region: &RegionId| {
            // One that something else has woken takes no turn.
            let waits = self.peers.get(region).filter(|peer| peer.hibernates());
            let is_free = waits.is_none_or(Peer::take_request);
            let is_next = is_free || turns > 0;
            turns -= usize::from(is_next && !is_free);
            is_next
        };
        let waking = self.hibernation.waking.iter();
        waking.filter(|(region, _)| is_next(region)).map(|(region, cause)| (*region, *cause)).collect()
    }

    fn wake_in_turn(&mut self, region: RegionId, cause: Cause) {
        let Some(peer) = self.peers.get_mut(&region).filter(|peer| peer.hibernates()) else { return };
        let (now, timeout) = (self.out.now, self.config.promise_duration());
        match cause {
            Cause::Start => peer.wake(now),
            // It was only late.
            Cause::Silence if self.hibernation.has_live_leader(peer, now, timeout) => return,
            Cause::Silence | Cause::Restart => peer.wake_without_leader(now),
        }
        self.dirty.insert(region);
    }

    fn send_signs_of_life(&mut self) {
        let Some(own) = self.identity.map(|identity| identity.store) else { return };
        let neighbours = self.hibernation.neighbours.get_or_insert_with(|| {
            let members = self.peers.values().flat_map(|peer| &peer.region().peers);
            members.map(|member| member.store).filter(|store| *store != own).collect()
        });
        for store in neighbours.iter() {
            let alive = self.out.leadership.sign_of_life(self.hibernation.process);
            let message = StoreMessage { from_store: own.0, to_store: store.0, ..alive };
            self.out.send.push((*store, message.encode_to_vec().into()));
        }
    }

    /// What any message says about its sender's store.
    pub(super) fn heard_from(&mut self, envelope: &StoreMessage) {
        if self.identity.is_none_or(|identity| identity.store.0 != envelope.to_store) {
            return;
        }
        let (from, now) = (StoreId(envelope.from_store), self.out.now);
        self.out.leadership.learn(envelope);
        if envelope.alive == 0 {
            self.hibernation.liveness.message_of(from, now, self.ticks);
        } else if self.hibernation.liveness.heard(from, envelope.alive, now, self.ticks) {
            self.queue_followers_of(from, Cause::Restart);
        }
        if self.out.leadership.is_silent(from) {
            self.find_silent_stores();
        }
    }

    /// The connection to a store broke.
    pub(super) fn unreachable(&mut self, store: StoreId) {
        self.hibernation.liveness.unreachable(store);
        self.find_silent_stores();
    }

    /// Clients are not sent to stores that are probably dead.
    fn find_silent_stores(&mut self) {
        let (timeout, ticks) = (self.config.silence_max(), u64::from(self.config.silence_ticks_max()));
        let silent = self.hibernation.liveness.silent(self.out.now, timeout, self.ticks, ticks);
        if self.out.leadership.set_silent(&silent) {
            self.readers.set_silent(silent);
        }
    }

    /// This store takes leadership from now on, or no more: then what it leads is transferred.
    pub(super) fn ability_to_lead_changed(&mut self) {
        let is_able = self.out.leadership.is_able();
        for (region, peer) in &mut self.peers {
            if peer.leads() && !is_able {
                peer.wake(self.out.now);
            }
            peer.ability_changed(is_able);
            self.dirty.insert(*region);
        }
    }

    /// Other stores lead while this one's log is slow (`peer/leader_transfer.rs`). Leaders that hibernate have nothing
    /// to write: they move when they wake up.
    pub(super) fn judge_log(&mut self) {
        let waiting = self.persisting.front().map(|oldest| self.out.now.saturating_sub(oldest.begun_at));
        if !self.out.leadership.judge_log(self.out.now, waiting) {
            return;
        }
        let speed = &self.out.leadership.log_speed;
        let average = speed.average();
        if speed.is_slow() {
            tracing::warn!(?average, "writes of the raft log take much longer than on other stores, which lead now");
        } else {
            tracing::info!(?average, "writes of the raft log do not take longer than on other stores any more");
        }
        self.peers.values_mut().for_each(Peer::log_speed_changed);
    }

    /// How long a write of the log takes, until it is durable, as of the last writes; `None` before the first. And
    /// whether that is so much longer than at other stores that these lead instead, where they can.
    pub fn log_speed(&self) -> (Option<Duration>, bool) {
        let speed = &self.out.leadership.log_speed;
        (speed.average(), speed.is_slow())
    }

    /// The log is lost, after a write of it that failed: for the regions that this store leads another one is ordered
    /// to campaign, if it can be elected, in as many regions as transfers may begin with a tick. Returns what is to be
    /// sent. Nothing else may be sent from now on, and the store may not be polled any more.
    pub fn abdicate(&mut self) -> Vec<(StoreId, Bytes)> {
        self.out.leadership.set_writable(false);
        self.out.leadership.begin_tick(self.config.wake_regions_per_tick_max);
        self.out.send.clear();
        for peer in self.peers.values_mut() {
            peer.abdicate(&mut self.out);
        }
        std::mem::take(&mut self.out.send)
    }

    /// After [`crate::Event::StopLeading`]: the number of regions that this store leads and that another one is about
    /// to lead. 0 also if no other store is able to, as for a region without other replicas.
    pub fn leaderships_to_hand_over(&self) -> usize {
        let Some(since) = self.out.leadership.stopping_since() else { return 0 };
        let waited = self.out.now.saturating_sub(since);
        self.peers.values().filter(|peer| peer.hands_over(waited, &self.out)).count()
    }

    /// The replicas that hibernate as followers of a leader on this store are to be woken. All its followers may vote
    /// for another leader from now on: a replica whose turn comes earlier elsewhere asks those that still wait.
    fn queue_followers_of(&mut self, store: StoreId, cause: Cause) {
        for (region, peer) in &mut self.peers {
            if !peer.leads() && peer.leader().is_some_and(|leader| leader.store == store) {
                peer.leader_is_silent();
                if peer.hibernates() {
                    // Requests from now on: clients that wait repeat theirs.
                    peer.take_request();
                    let known = self.hibernation.waking.entry(*region).or_insert(cause);
                    *known = cause.max(*known);
                }
            }
        }
    }
}
