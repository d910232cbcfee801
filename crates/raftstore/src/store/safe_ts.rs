//! Safe timestamps of all regions (`peer/safe_ts.rs`): which are advanced, and the messages about them.
//!
//! A region costs nothing here unless clients read it at timestamps. A store that serves such a read, or refuses it,
//! says so to the store of the region's leader with the next interval, and from then on that one advances the region's
//! safe timestamp once in each interval, until it was not read for [`crate::Config::safe_ts_wanted_ticks`].
//!
//! A round: the owner gets a timestamp ([`Event::Timestamp`](crate::Event::Timestamp)); the regions without a lease are
//! confirmed by a message to each store and its answer; views are taken and searched for locks; the claims are sent,
//! one message for each store. What is lost of it is not repeated: the next round is soon enough.

use super::Store;
use crate::consensus::wire::{SafeTsMessage, SafeTsRegion, StoreMessage};
use crate::effect::SafeTsClaim;
use crate::peer::Peer;
use crate::region::{PeerId, RegionId, StoreId};
use prost::Message;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct SafeTimestamps {
    /// Regions that are read at timestamps, somewhere, and were led here when that was said; and until which tick.
    wanted: BTreeMap<RegionId, u64>,
    /// Of the regions that were read here in the last interval, the lowest safe timestamp.
    lowest: Option<u64>,
}

impl Store {
    /// Of the regions with a replica here that were read at timestamps in the last interval and have a safe timestamp,
    /// the lowest one.
    pub fn lowest_safe_ts(&self) -> Option<u64> {
        self.safe_ts.lowest
    }

    /// One tick: what was read here, and whether another round is due.
    pub(super) fn tick_safe_ts(&mut self) {
        let (ticks, interval) = (self.ticks, self.config.safe_ts_ticks);
        if interval == 0 || !ticks.is_multiple_of(interval) {
            return;
        }
        let (read, mut elsewhere) = (self.readers.take_stale_reads(), BTreeMap::<StoreId, SafeTsMessage>::new());
        self.safe_ts.lowest = read.values().copied().filter(|safe_ts| *safe_ts != 0).min();
        for region in read.into_keys() {
            let Some(peer) = self.peers.get(&region) else { continue };
            match peer.leader() {
                _ if peer.leads() => self.want_safe_ts(region),
                Some(leader) => elsewhere.entry(leader.store).or_default().wanted.push(region.0),
                None => {}
            }
        }
        self.send_safe_ts(elsewhere);
        self.safe_ts.wanted.retain(|_, until| *until > ticks);
        let leads = |region: &RegionId| self.peers.get(region).is_some_and(Peer::leads);
        self.out.wants_timestamp |= self.safe_ts.wanted.keys().any(leads);
    }

    fn want_safe_ts(&mut self, region: RegionId) {
        self.safe_ts.wanted.insert(region, self.ticks + self.config.safe_ts_wanted_ticks);
    }

    /// A round begins.
    pub(super) fn begin_safe_ts(&mut self, ts: u64) {
        let mut asked = BTreeMap::<StoreId, SafeTsMessage>::new();
        for region in self.safe_ts.wanted.keys() {
            let Some(peer) = self.peers.get_mut(region) else { continue };
            for store in peer.begin_safe_ts(ts, &mut self.out) {
                let message = asked.entry(store).or_insert_with(|| SafeTsMessage { ts, ..SafeTsMessage::default() });
                message.asked.push(peer.safe_ts_record());
            }
            self.dirty.insert(*region);
        }
        self.send_safe_ts(asked);
    }

    /// What was found of regions that were led here.
    pub(super) fn claim_safe_ts(&mut self, claims: Vec<SafeTsClaim>) {
        let mut learning = BTreeMap::<StoreId, SafeTsMessage>::new();
        for claim in claims {
            let Some(peer) = self.peers.get(&claim.region) else { continue };
            let SafeTsClaim { version, index, safe_ts, .. } = claim;
            let record = SafeTsRegion { version, index, safe_ts, ..peer.safe_ts_record() };
            for member in peer.members().peers.iter().filter(|member| member.id != peer.id()) {
                learning.entry(member.store).or_default().claims.push(record);
            }
            self.with_peer(claim.region, |peer, _| peer.learn_claim(claim));
        }
        self.send_safe_ts(learning);
    }

    /// To stores of an earlier version nothing is sent: their replicas are read as before, at the leader.
    fn send_safe_ts(&mut self, messages: BTreeMap<StoreId, SafeTsMessage>) {
        let Some(own) = self.identity.map(|identity| identity.store) else { return };
        for (to, message) in messages.into_iter().filter(|(to, _)| self.out.leadership.knows_safe_ts(*to)) {
            let (from_store, to_store, safe_ts) = (own.0, to.0, Some(Box::new(message)));
            let envelope = StoreMessage { from_store, to_store, safe_ts, ..self.out.leadership.message() };
            self.out.send.push((to, envelope.encode_to_vec().into()));
        }
    }

    /// Another store's message.
    pub(super) fn take_safe_ts(&mut self, envelope: &StoreMessage, message: &SafeTsMessage) {
        if self.identity.is_none_or(|identity| identity.store.0 != envelope.to_store) {
            return;
        }
        let (from, ts) = (StoreId(envelope.from_store), message.ts);
        for region in message.wanted.iter().map(|region| RegionId(*region)) {
            if self.peers.contains_key(&region) {
                self.want_safe_ts(region);
            }
        }
        // A lost store's replicas count for nothing.
        let recovery = self.recovery.clone();
        let counts = |record: &&SafeTsRegion| !recovery.is_lost(from, record.conf_version);
        let confirms = |record: &&SafeTsRegion| {
            self.peers.get(&RegionId(record.region)).is_some_and(|peer| peer.confirms_leader(record))
        };
        let asked = message.asked.iter().filter(counts).filter(confirms);
        let confirmed: Vec<SafeTsRegion> =
            asked.map(|record| self.peers[&RegionId(record.region)].safe_ts_record()).collect();
        if !confirmed.is_empty() {
            let answer = SafeTsMessage { ts, confirmed, ..SafeTsMessage::default() };
            self.send_safe_ts(BTreeMap::from([(from, answer)]));
        }
        for record in message.confirmed.iter().filter(counts) {
            let peer = PeerId(record.peer);
            self.with_peer(RegionId(record.region), |leader, _| leader.safe_ts_confirmed(ts, peer));
        }
        for record in message.claims.iter().filter(counts) {
            let SafeTsRegion { version, index, safe_ts, .. } = *record;
            let claim = SafeTsClaim { region: RegionId(record.region), version, index, safe_ts };
            self.with_peer(claim.region, |peer, _| peer.learn_claim(claim));
        }
    }
}
