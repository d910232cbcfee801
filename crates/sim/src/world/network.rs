//! The network: decides when, how often and whether a packet arrives. It never looks inside.

use super::node::NodeId;
use super::settings::NetworkSettings;
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
    settings: NetworkSettings,
    cut: BTreeSet<Link>,
    /// Packets on the link arrive after this time.
    delayed_until: BTreeMap<Link, Duration>,
    /// The latest arrival planned, for links that keep order.
    last_arrival: BTreeMap<Link, Duration>,
}

impl Network {
    /// A whole network.
    pub fn new(rng: Rng, settings: NetworkSettings) -> Network {
        Network { rng, settings, cut: BTreeSet::new(), delayed_until: BTreeMap::new(), last_arrival: BTreeMap::new() }
    }

    /// Sets the treatment of packets from now on.
    pub fn configure(&mut self, settings: NetworkSettings) {
        self.settings = settings;
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
    pub fn delay_link(&mut self, from: Address, to: Address, until: Duration) {
        self.delayed_until.insert((from, to), until);
    }

    /// Restores all links.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.delayed_until.clear();
    }

    /// When a packet sent now arrives: never, once, or (if it may be repeated) twice.
    pub fn arrivals(&mut self, link: Link, now: Duration, may_repeat: bool) -> Vec<Duration> {
        if self.cut.contains(&link) || self.rng.chance(self.settings.loss_ppm, PPM) {
            return Vec::new();
        }
        let mut arrivals = vec![self.arrival(link, now)];
        if may_repeat && self.rng.chance(self.settings.duplicates_ppm, PPM) {
            arrivals.push(self.arrival(link, now));
        }
        arrivals
    }

    fn arrival(&mut self, link: Link, now: Duration) -> Duration {
        let mut latency_us = self.rng.range(self.settings.latency_us.clone());
        if self.settings.straggle_us_max > 0 && self.rng.chance(self.settings.stragglers_ppm, PPM) {
            latency_us += self.rng.below(self.settings.straggle_us_max);
        }
        let sent = self.delayed_until.get(&link).map_or(now, |until| now.max(*until));
        let mut arrival = sent + Duration::from_micros(latency_us);
        if self.settings.is_ordered {
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
