//! The clients of a world: how many of each kind, depending on its scenario.

use super::scenario::Scenario;
use crate::workload::{BankSettings, RawSettings};
use kontiki_env::rng::Rng;
use std::time::Duration;

/// The clients of a world.
#[derive(Clone, Debug)]
pub struct ClientMix {
    /// How raw clients behave.
    pub raw: RawSettings,
    /// Raw clients that follow the leader.
    pub raw_clients: u64,
    /// Raw clients that use one node only: this number for each node.
    pub pinned: Vec<RawSettings>,
    /// Clients of placement that follow the leader.
    pub timestamp_clients: u64,
    /// For each node, one client of placement that uses it only.
    pub pinned_timestamps: bool,
    /// Longest wait of a client of placement between requests, milliseconds.
    pub timestamp_pause_ms_max: u64,
    /// The bank, if there is one, and its tellers.
    pub bank: Option<(BankSettings, u64)>,
    /// Clients that read it as it was.
    pub stale_readers: u64,
}

impl ClientMix {
    /// Draws the clients of a world.
    pub fn draw(scenario: Scenario, rng: &mut Rng) -> ClientMix {
        let raw = RawSettings::draw(rng);
        let raw_clients = 1 + rng.below(5);
        let timestamp_clients = 1 + rng.below(2);
        let pinned = rng.chance(1, 2).then(|| raw.reading()).into_iter().collect();
        let bank = rng.chance(1, 2).then(|| (BankSettings::draw(rng), 1 + rng.below(4)));
        let timestamp_pause_ms_max = 1 << rng.below(7);
        let plain = ClientMix {
            raw,
            raw_clients,
            pinned,
            timestamp_clients,
            pinned_timestamps: false,
            timestamp_pause_ms_max,
            bank,
            stale_readers: rng.child("stale readers").below(3),
        };
        match scenario {
            Scenario::Plain => plain,
            Scenario::Leases => plain.at_every_node(rng),
            Scenario::Snapshots => ClientMix {
                raw: RawSettings {
                    gets_percent: 10,
                    pause_ms_max: 1 << rng.below(4),
                    value_bytes_max: 128 << rng.below(3),
                    ..plain.raw
                },
                bank: rng.chance(3, 4).then(|| (BankSettings::draw(rng), 1 + rng.below(3))),
                ..plain
            },
            Scenario::Placement => ClientMix {
                raw_clients: 1,
                pinned: Vec::new(),
                timestamp_clients: 2,
                pinned_timestamps: true,
                timestamp_pause_ms_max: 1 << rng.below(5),
                bank: None,
                ..plain
            },
            Scenario::Flow => plain.with_much_to_write(rng),
        }
    }

    /// One hot key, written by clients that follow the leader, and read at every node all the time: a client that
    /// follows the leader never asks a deposed one. Puts of distinct values and gets only, so that long histories of
    /// one key can be checked.
    fn at_every_node(self, rng: &mut Rng) -> ClientMix {
        let pause_ms_max = 4 << rng.below(3);
        let raw = RawSettings {
            keys: 1,
            deletes_percent: 0,
            many_percent: 0,
            tail_one_in: 0,
            value_bytes_max: 16,
            pause_ms_max,
            gets_percent: 20,
            rotate: Duration::from_secs(3),
            is_atomic: false,
        };
        let pinned = vec![raw.reading(), raw.clone()];
        let bank = self.bank.filter(|_| rng.chance(1, 4));
        ClientMix { raw, raw_clients: rng.below(2), pinned, timestamp_clients: 1, bank, ..self }
    }

    /// Values that fill a small budget; or mostly a bank of few accounts, whose latches are contended while their
    /// holders wait for an apply. (Beside the former the latter would be refused because the budget is used up.)
    fn with_much_to_write(self, rng: &mut Rng) -> ClientMix {
        let is_bank = rng.chance(1, 2);
        let raw = RawSettings {
            gets_percent: 10,
            pause_ms_max: if is_bank { 64 } else { 1 << rng.below(3) },
            value_bytes_max: if is_bank { 64 } else { 1_024 },
            many_percent: 0,
            deletes_percent: 0,
            ..self.raw
        };
        let bank = (is_bank || rng.chance(1, 3)).then(|| {
            let settings = BankSettings {
                accounts: 2 + rng.below(2),
                pause_ms_max: 1 + rng.below(8),
                snapshots_percent: 10,
                ..BankSettings::draw(rng)
            };
            (settings, 2 + rng.below(4))
        });
        let raw_clients = if is_bank { 1 } else { 2 + rng.below(4) };
        ClientMix { raw, raw_clients, pinned: Vec::new(), bank, ..self }
    }
}
