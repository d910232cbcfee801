//! The nemesis: at random intervals it injects one of the faults that its settings allow, and plans the end of the
//! fault.

use super::network::{Address, Link};
use super::node::{NodeId, SimNode};
use super::settings::{Fault, NetworkSettings};
use super::{Event, Slot, State, World};
use kontiki_env::fs::{CrashMode, Op};
use kontiki_env::rng::Rng;
use std::time::Duration;

/// Number of mutating operations within which a power loss happens: about as many as a node does per second.
const OPS_UNTIL_POWER_LOSS_MAX: u64 = 300;
/// How much longer than other faults a disk is slow.
const SLOW_DISK_LENGTHS: u32 = 5;
/// How far a wall clock jumps, usually and at most.
const WALL_JUMP_MS: u64 = 5_000;
const WALL_JUMP_MS_MAX: u64 = 24 * 3_600_000;

impl<N: SimNode> World<N> {
    /// Switches the nemesis on.
    pub fn start_nemesis(&mut self) {
        self.is_nemesis_awake = true;
        self.plan_nemesis();
    }

    /// Switches the nemesis off and ends all faults: the network is whole and without faults, clocks are right (except
    /// for their usual skew), slow jobs are fast, every node runs, and a node is restarted whose disk had a fault, or
    /// that was about to stop. The contents of the disks stay.
    pub fn heal(&mut self) {
        self.is_nemesis_awake = false;
        self.trace.add(self.time.now(), "heal", &[], &[]);
        self.network.heal();
        let calm = super::Settings::calm();
        self.network.configure(calm.network);
        self.settings.slow_job_us = calm.slow_job_us;
        let ids: Vec<NodeId> = self.slots.keys().copied().collect();
        for id in ids {
            let slot = self.slots.get_mut(&id).expect("nodes stay");
            slot.stalled_until = Duration::ZERO;
            slot.slowed = Default::default();
            slot.node.slow_applies(None);
            let machine = slot.node.machine();
            machine.fs.clear_faults();
            machine.fs.set_quota(None);
            machine.clock.set_drift_ppm(0);
            machine.clock.set_wall_offset_ms(slot.wall_skew_ms);
            // Work that waits for a stalled disk continues; a superfluous event does nothing.
            let (now, life) = (self.time.now(), slot.life);
            self.heap.push(now, Event::Background { node: id, life });
            self.heap.push(now, Event::SlowJob { node: id, life });
            self.resume(id);
            if self.has_met_faults(id) || self.slots[&id].stops {
                self.crash(id, CrashMode::Kill);
            }
            self.start_after(id, Duration::ZERO);
        }
    }

    /// Stalls a node's disk for this time: syncs and background work wait.
    pub fn stall_disk(&mut self, id: NodeId, length: Duration) {
        let until = self.time.now() + length;
        let slot = self.slots.get_mut(&id).expect("nodes stay");
        slot.stalled_until = slot.stalled_until.max(until);
    }

    /// Makes each unit of background work of a node (such as a sync of its log) take so much longer, for this time.
    pub fn slow_disk(&mut self, id: NodeId, length: Duration, by: Duration) {
        let until = self.time.now() + length;
        self.slots.get_mut(&id).expect("nodes stay").slowed = (until, by);
    }

    fn plan_nemesis(&mut self) {
        let is_burst = self.settings.burst_percent > 0 && self.nemesis_rng.chance(self.settings.burst_percent, 100);
        let interval_ms = if is_burst { &self.settings.burst_ms } else { &self.settings.fault_interval_ms };
        let interval = Duration::from_millis(self.nemesis_rng.range(interval_ms.clone()));
        self.heap.push(self.time.now() + interval, Event::Nemesis);
    }

    pub(super) fn nemesis_acts(&mut self) {
        let action = self.actions;
        if !self.is_nemesis_awake || self.settings.actions_max.is_some_and(|max| action >= max) {
            return;
        }
        self.actions += 1;
        self.plan_nemesis();
        let Some(&fault) = self.nemesis_rng.pick(&self.settings.faults) else { return };
        let length = Duration::from_millis(self.nemesis_rng.range(self.settings.fault_length_ms.clone()));
        self.trace.add(self.time.now(), "nemesis", &[fault as u64, length.as_millis() as u64], &[]);
        if !self.settings.actions_left_out.contains(&action) && self.inflict(fault, length) {
            *self.faults.entry(fault).or_default() += 1;
        }
    }

    /// Injects the fault; false if the state of the world does not allow it.
    fn inflict(&mut self, fault: Fault, length: Duration) -> bool {
        match fault {
            Fault::Partition => self.partition(length),
            Fault::OneWay => self.one_way(length),
            Fault::LinkDelay => self.delay_link(length),
            Fault::Crash => self.take_down(CrashMode::Random, length),
            Fault::Kill => self.take_down(CrashMode::Kill, length),
            Fault::CrashInOperation => self.power_off_soon(),
            Fault::Pause => self.pause_for(length),
            Fault::Drift => self.drift(),
            Fault::WallJump => self.jump(),
            Fault::DiskFull => self.fill_disk(length),
            Fault::DiskStall => self.stall_some_disk(length),
            Fault::DiskSlow => self.slow_some_disk(length),
            Fault::SyncError => self.fail_disk(Op::Sync),
            Fault::ReadError => self.fail_disk(Op::Read),
            Fault::SlowApply => self.slow_apply(length),
            Fault::Transfer => self.transfer(),
            Fault::Stop => self.stop(length),
            Fault::Split => self.by_a_leader(|node, rng| node.split_region(rng)),
            Fault::Merge => self.by_a_leader(|node, rng| node.merge_region(rng)),
            Fault::ChangeMembers => self.by_a_leader(|node, rng| node.change_members(rng)),
            Fault::Sever => self.sever(length),
            Fault::Isolate => self.isolate(length),
            Fault::NetworkChange => {
                let settings = NetworkSettings::draw(&mut self.nemesis_rng);
                self.network.configure(settings);
                true
            }
        }
    }

    /// A leader, with the probability of the settings.
    fn aim(&mut self) -> Option<NodeId> {
        if self.settings.aim_percent == 0 || !self.nemesis_rng.chance(self.settings.aim_percent, 100) {
            return None;
        }
        let leads = |slot: &Slot<N>| slot.state == State::Up && slot.node.is_leading();
        let leaders: Vec<NodeId> = self.slots.iter().filter(|(_, slot)| leads(slot)).map(|(id, _)| *id).collect();
        self.nemesis_rng.pick(&leaders).copied()
    }

    fn pick_up(&mut self) -> Option<NodeId> {
        if let Some(leader) = self.aim() {
            return Some(leader);
        }
        let up: Vec<NodeId> =
            self.slots.iter().filter(|(_, slot)| slot.state == State::Up).map(|(id, _)| *id).collect();
        self.nemesis_rng.pick(&up).copied()
    }

    fn pick_any(&mut self) -> Option<NodeId> {
        if let Some(leader) = self.aim() {
            return Some(leader);
        }
        let ids: Vec<NodeId> = self.slots.keys().copied().collect();
        self.nemesis_rng.pick(&ids).copied()
    }

    fn pick_link(&mut self) -> Option<Link> {
        let (from, to) = (self.pick_any()?, self.pick_any()?);
        (from != to).then_some((Address::Node(from), Address::Node(to)))
    }

    fn partition(&mut self, length: Duration) -> bool {
        let mut ids: Vec<Address> = self.slots.keys().copied().map(Address::Node).collect();
        if ids.len() < 2 {
            return false;
        }
        self.nemesis_rng.shuffle(&mut ids);
        if let Some(leader) = self.aim().map(Address::Node)
            && let Some(place) = ids.iter().position(|id| *id == leader)
        {
            ids.swap(0, place);
        }
        let size = 1 + self.nemesis_rng.below(ids.len() as u64 - 1) as usize;
        let (left, right) = ids.split_at(size);
        let across = left.iter().flat_map(|a| right.iter().flat_map(move |b| [(*a, *b), (*b, *a)])).collect();
        self.cut_for(length, across);
        true
    }

    fn one_way(&mut self, length: Duration) -> bool {
        let Some(link) = self.pick_link() else { return false };
        self.cut_for(length, vec![link]);
        true
    }

    fn sever(&mut self, length: Duration) -> bool {
        let Some((one, other)) = self.pick_link() else { return false };
        self.cut_for(length, vec![(one, other), (other, one)]);
        true
    }

    pub(super) fn cut_for(&mut self, length: Duration, links: Vec<Link>) {
        if !self.is_nemesis_awake {
            return;
        }
        links.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        self.heap.push(self.time.now() + length, Event::Join(links));
    }

    fn delay_link(&mut self, length: Duration) -> bool {
        let Some((from, to)) = self.pick_link() else { return false };
        self.network.delay_link(from, to, self.time.now() + length);
        true
    }

    fn may_take_down(&self) -> bool {
        self.slots.values().filter(|slot| slot.state == State::Down).count() < self.settings.down_max.max(1)
    }

    fn take_down(&mut self, mode: CrashMode, length: Duration) -> bool {
        let Some(id) = self.pick_up().filter(|_| self.may_take_down()) else { return false };
        self.take_down_node(id, mode, length);
        true
    }

    fn take_down_node(&mut self, id: NodeId, mode: CrashMode, length: Duration) {
        let outage = self.settings.outage_ms.clone().map(|outage_ms| self.nemesis_rng.range(outage_ms));
        self.crash(id, mode);
        self.start_after(id, outage.map_or(length, Duration::from_millis));
    }

    /// Each of the others is disconnected at a separate moment, for a separate time.
    fn isolate(&mut self, length: Duration) -> bool {
        let Some(lonely) = self.pick_up() else { return false };
        let others: Vec<NodeId> = self.slots.keys().copied().filter(|id| *id != lonely).collect();
        for other in others {
            let (one, two) = (Address::Node(lonely), Address::Node(other));
            let at = self.time.now() + self.fraction(length);
            let links = vec![(one, two), (two, one)];
            let for_so_long = self.fraction(2 * length);
            self.heap.push(at, Event::Cut { links, length: for_so_long });
            let fault = match self.nemesis_rng.below(6) {
                0 | 1 => Fault::Kill,
                2 => Fault::Pause,
                3 => Fault::DiskStall,
                _ => continue,
            };
            let length = self.fraction(length);
            self.heap.push(at, Event::Strike { node: other, fault, length });
        }
        true
    }

    fn fraction(&mut self, length: Duration) -> Duration {
        let length_us = u64::try_from(length.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(self.nemesis_rng.below(length_us))
    }

    /// Injects the fault at this node, if the state of the world allows it.
    pub(super) fn strike(&mut self, node: NodeId, fault: Fault, length: Duration) {
        if !self.is_nemesis_awake || self.slots[&node].state != State::Up {
            return;
        }
        match fault {
            Fault::Kill if self.may_take_down() => self.take_down_node(node, CrashMode::Kill, length),
            Fault::Pause => self.pause_node(node, length),
            Fault::DiskStall => self.stall_disk(node, length),
            Fault::Stop if self.slots[&node].stops => self.take_down_node(node, CrashMode::Kill, length),
            _ => {}
        }
    }

    fn power_off_soon(&mut self) -> bool {
        let Some(id) = self.pick_up().filter(|_| self.may_take_down()) else { return false };
        let ops = self.nemesis_rng.below(OPS_UNTIL_POWER_LOSS_MAX);
        self.slots[&id].node.machine().fs.power_off_after(ops);
        true
    }

    fn pause_for(&mut self, length: Duration) -> bool {
        let Some(id) = self.pick_up() else { return false };
        self.pause_node(id, length);
        true
    }

    fn pause_node(&mut self, id: NodeId, length: Duration) {
        self.pause(id);
        self.heap.push(self.time.now() + length, Event::Resume { node: id });
    }

    fn fill_disk(&mut self, length: Duration) -> bool {
        let Some(id) = self.pick_any() else { return false };
        let fs = &self.slots[&id].node.machine().fs;
        fs.set_quota(Some(fs.used_bytes()));
        self.heap.push(self.time.now() + length, Event::SpaceFreed { node: id });
        true
    }

    fn stall_some_disk(&mut self, length: Duration) -> bool {
        let Some(id) = self.pick_any() else { return false };
        self.stall_disk(id, length);
        true
    }

    /// For longer than other faults last: whether a disk is slow shows after some time.
    fn slow_some_disk(&mut self, length: Duration) -> bool {
        let Some(id) = self.pick_any() else { return false };
        let by = Duration::from_millis(self.nemesis_rng.range(self.settings.slow_disk_ms.clone()));
        self.slow_disk(id, SLOW_DISK_LENGTHS * length, by);
        true
    }

    /// The next operation of the kind fails, on any file: the node will stop, so it counts as one that is down.
    fn fail_disk(&mut self, op: Op) -> bool {
        let Some(id) = self.pick_up().filter(|_| self.may_take_down()) else { return false };
        self.slots[&id].node.machine().fs.fail_next(op, 1, |_| true);
        true
    }

    fn slow_apply(&mut self, length: Duration) -> bool {
        let Some(id) = self.pick_any() else { return false };
        let delay = Duration::from_millis(self.nemesis_rng.range(self.settings.slow_apply_ms.clone()));
        self.slots.get_mut(&id).expect("it was picked").node.slow_applies(Some(delay));
        self.heap.push(self.time.now() + length, Event::FastApply { node: id });
        true
    }

    fn transfer(&mut self) -> bool {
        let up = |slot: &&mut Slot<N>| slot.state == State::Up;
        let mut leaders: Vec<&mut Slot<N>> = self.slots.values_mut().filter(up).collect();
        self.nemesis_rng.shuffle(&mut leaders);
        leaders.into_iter().any(|slot| slot.node.transfer_leadership(&mut self.nemesis_rng))
    }

    fn stop(&mut self, length: Duration) -> bool {
        let Some(id) = self.pick_up().filter(|_| self.may_take_down()) else { return false };
        let at = self.time.now() + self.fraction(length);
        let slot = self.slots.get_mut(&id).expect("it was picked");
        slot.stops = true;
        slot.node.stop_leading();
        self.heap.push(at, Event::Strike { node: id, fault: Fault::Stop, length });
        true
    }

    /// One of the nodes that are up does something to a region that it leads.
    fn by_a_leader(&mut self, act: impl Fn(&mut N, &mut Rng) -> bool) -> bool {
        let up = |slot: &&mut Slot<N>| slot.state == State::Up;
        let mut leaders: Vec<&mut Slot<N>> = self.slots.values_mut().filter(up).collect();
        self.nemesis_rng.shuffle(&mut leaders);
        leaders.into_iter().any(|slot| act(&mut slot.node, &mut self.nemesis_rng))
    }

    fn drift(&mut self) -> bool {
        let bound = self.settings.drift_ppm_max;
        let Some(id) = self.pick_any() else { return false };
        let drift_ppm = if self.settings.is_drift_extreme {
            (self.nemesis_rng.below(3) as i64 - 1) * bound as i64
        } else {
            self.nemesis_rng.below(2 * bound + 1) as i64 - bound as i64
        };
        self.slots[&id].node.machine().clock.set_drift_ppm(drift_ppm);
        drift_ppm != 0
    }

    fn jump(&mut self) -> bool {
        let Some(id) = self.pick_any() else { return false };
        let bound = if self.nemesis_rng.chance(1, 10) { WALL_JUMP_MS_MAX } else { WALL_JUMP_MS };
        let offset_ms = self.nemesis_rng.below(2 * bound) as i64 - bound as i64;
        let slot = &self.slots[&id];
        slot.node.machine().clock.set_wall_offset_ms(slot.wall_skew_ms + offset_ms);
        true
    }
}
