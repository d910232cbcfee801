//! The network: decides when, how often and whether a packet arrives. It never looks inside.

use super::knobs::NetworkKnobs;
use super::node::NodeId;
use kontiki_env::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A node.
    Node(NodeId),
    /// A client.
    Client(u64),
}

/// A directed link.
pub type Link = (Address, Address);

const PPM: u64 = 1_000_000;

/// The network's state.
#[derive(Debug)]
pub struct Network {
    rng: Rng,
    knobs: NetworkKnobs,
    cut: BTreeSet<Link>,
    /// Packets on the link arrive after this time.
    clogged_until: BTreeMap<Link, Duration>,
    /// The latest arrival planned, for links that keep order.
    last_arrival: BTreeMap<Link, Duration>,
}

impl Network {
    /// A whole network.
    pub fn new(rng: Rng, knobs: NetworkKnobs) -> Network {
        Network { rng, knobs, cut: BTreeSet::new(), clogged_until: BTreeMap::new(), last_arrival: BTreeMap::new() }
    }

    /// Sets the treatment of packets from now on.
    pub fn set_knobs(&mut self, knobs: NetworkKnobs) {
        self.knobs = knobs;
    }

    /// Cuts one direction between two ends: packets sent from now on are lost.
    pub fn cut(&mut self, from: Address, to: Address) {
        self.cut.insert((from, to));
    }

    /// Restores one direction.
    pub fn join(&mut self, from: Address, to: Address) {
        self.cut.remove(&(from, to));
    }

    /// Delays packets on a link until `until`.
    pub fn clog(&mut self, from: Address, to: Address, until: Duration) {
        self.clogged_until.insert((from, to), until);
    }

    /// Restores all links.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.clogged_until.clear();
    }

    /// When a packet sent now arrives: never, once, or (if it may be repeated) twice.
    pub fn arrivals(&mut self, link: Link, now: Duration, may_repeat: bool) -> Vec<Duration> {
        if self.cut.contains(&link) || self.rng.chance(self.knobs.loss_ppm, PPM) {
            return Vec::new();
        }
        let mut arrivals = vec![self.arrival(link, now)];
        if may_repeat && self.rng.chance(self.knobs.duplicates_ppm, PPM) {
            arrivals.push(self.arrival(link, now));
        }
        arrivals
    }

    fn arrival(&mut self, link: Link, now: Duration) -> Duration {
        let mut latency_us = self.rng.range(self.knobs.latency_us.clone());
        if self.knobs.straggle_us_max > 0 && self.rng.chance(self.knobs.stragglers_ppm, PPM) {
            latency_us += self.rng.below(self.knobs.straggle_us_max);
        }
        let sent = self.clogged_until.get(&link).map_or(now, |until| now.max(*until));
        let mut arrival = sent + Duration::from_micros(latency_us);
        if self.knobs.is_ordered {
            let last = self.last_arrival.entry(link).or_default();
            arrival = arrival.max(*last);
            *last = arrival;
        }
        arrival
    }
}

#[cfg(test)]
#[path = "network_test.rs"]
mod tests;
