//! Step-by-step tests: text files in tests/scripts, each named for a situation, with commands and what they must cause.
//!
//! Nothing happens by itself: time passes by `tick` and `wait`, messages arrive by `deliver`, a disk that was held is
//! written by `release_disk`. `UPDATE_GOLDENFILES=1 cargo test -p kontiki-raftstore scripts` writes the expected output
//! anew. Read the difference.
#![allow(clippy::disallowed_methods, reason = "the scripts are files of the repository")]

#[path = "script_text.rs"]
mod text;

use crate::cluster::node::{Job, Node};
use crate::cluster::{EPOCH, REGION, families, region, small_config};
use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use kontiki_engine::{View, WriteBatch};
use kontiki_env::rng::Rng;
use kontiki_raftstore::{
    Config, Epoch, Event, MemberChange, Peer, PeerId, Region, StoreId, Ticket, command, replica_id,
};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Deliveries after which a script is taken not to come to rest.
const DELIVERIES_MAX: usize = 10_000;

struct Packet {
    from: StoreId,
    to: StoreId,
    bytes: Bytes,
}

struct Script {
    now: Duration,
    config: Config,
    rng: Rng,
    nodes: BTreeMap<StoreId, Node>,
    /// Messages on their way, oldest first.
    network: Vec<Packet>,
    /// Links that lose everything.
    cut: BTreeSet<(StoreId, StoreId)>,
    held_disks: BTreeSet<StoreId>,
    held_applies: BTreeSet<StoreId>,
    /// What each ticket asked for.
    tickets: BTreeMap<Ticket, String>,
    output: String,
}

impl Script {
    fn new() -> Script {
        Script {
            now: Duration::from_secs(1),
            config: Config { truncate_entries_min: 1, truncate_ticks: 1, ..small_config() },
            rng: Rng::new(1),
            nodes: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            held_disks: BTreeSet::new(),
            held_applies: BTreeSet::new(),
            tickets: BTreeMap::new(),
            output: String::new(),
        }
    }

    fn line(&mut self, line: String) {
        let _ = writeln!(self.output, "{line}");
    }

    fn node(&mut self, id: StoreId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a store of this script")
    }

    fn add_node(&mut self, id: StoreId, regions: &[Region], directory: Option<u64>) {
        let mut node = Node::new(id, regions);
        node.view_failures_percent = 0;
        node.directory = directory;
        node.start(&self.config, &self.rng);
        self.nodes.insert(id, node);
    }

    fn handle(&mut self, id: StoreId, event: Event) {
        self.node(id).inbox.push_back(event);
        self.work(id);
    }

    /// Lets a store do everything that it can do without its held parts.
    fn work(&mut self, id: StoreId) {
        let (now, disk, applies) = (self.now, !self.held_disks.contains(&id), !self.held_applies.contains(&id));
        let node = self.nodes.get_mut(&id).expect("a store of this script");
        while node.is_up() {
            while disk && let Some((_, batch, commit)) = node.persists.pop_front() {
                node.disk.commit(&commit);
                node.visible.write(&commit.batch);
                node.inbox.push_back(Event::Persisted { batch });
            }
            while applies && let Some((_, through, batch)) = node.applies.pop_front() {
                node.visible.write(&batch);
                node.inbox.push_back(Event::Applied { through });
            }
            let local = node.local(now);
            let store = node.store.as_mut().expect("up");
            node.inbox.drain(..).for_each(|event| store.handle(event, local));
            let effects = store.poll(local);
            if effects.is_empty() {
                break;
            }
            node.perform(effects, now, &mut self.rng);
        }
        self.collect(id);
    }

    /// Takes what a store has said: messages, answers and observations.
    fn collect(&mut self, id: StoreId) {
        let node = self.node(id);
        let (outbound, answers) = (std::mem::take(&mut node.outbound), std::mem::take(&mut node.answers));
        for observation in std::mem::take(&mut node.observations) {
            self.line(format!("{id}: {}", text::observation(&observation)));
        }
        for (ticket, answer) in answers {
            let asked = self.tickets[&ticket].clone();
            self.line(format!("{id}: {asked}: {}", text::answer(&answer)));
        }
        let cut = &self.cut;
        let sent = outbound.into_iter().filter(|(to, _)| !cut.contains(&(id, *to)));
        self.network.extend(sent.map(|(to, bytes)| Packet { from: id, to, bytes }));
    }

    fn tick(&mut self, ids: &[StoreId]) {
        self.now += self.config.tick_interval;
        for id in ids {
            if self.nodes[id].is_up() {
                self.handle(*id, Event::Tick);
            }
        }
    }

    /// Delivers the messages that are on their way on these links (all, if none is named).
    fn deliver(&mut self, links: &[(StoreId, StoreId)], silent: bool) {
        for packet in self.take(links) {
            if !silent {
                self.line(format!("{}->{} {}", packet.from, packet.to, text::message(&packet.bytes)));
            }
            if self.nodes.get(&packet.to).is_some_and(Node::is_up) {
                self.handle(packet.to, Event::Message(packet.bytes));
            }
        }
    }

    /// Delivers until no message is on its way.
    fn settle(&mut self) {
        for _ in 0..DELIVERIES_MAX {
            if self.network.is_empty() {
                return;
            }
            self.deliver(&[], true);
        }
        panic!("the messages come to no end");
    }

    fn take(&mut self, links: &[(StoreId, StoreId)]) -> Vec<Packet> {
        let wanted = |packet: &mut Packet| links.is_empty() || links.contains(&(packet.from, packet.to));
        self.network.extract_if(.., wanted).collect()
    }

    fn request(&mut self, id: StoreId, what: String, event: impl FnOnce(Ticket) -> Event) {
        let ticket = Ticket(self.tickets.len() as u64 + 1);
        self.tickets.insert(ticket, what);
        self.node(id).ask(ticket, event(ticket));
        self.work(id);
    }

    /// Does the work on snapshots that a store has to do now.
    fn snapshot_work(&mut self, id: StoreId, sends_fail: bool) {
        for (_, job) in std::mem::take(&mut self.node(id).jobs) {
            self.line(format!("{id}: {}", text::job(&job, sends_fail)));
            let Job::Send { region, to, message, view, bytes } = job else {
                self.node(id).jobs.push((Duration::ZERO, job));
                continue;
            };
            let ok = !sends_fail && !self.cut.contains(&(id, to)) && self.nodes[&to].is_up();
            if ok {
                self.node(to).receive_snapshot(message, bytes);
            }
            self.node(id).inbox.push_back(Event::SnapshotSent { region, to, view, ok });
            self.work(to);
        }
        while !self.node(id).jobs.is_empty() {
            self.node(id).complete_jobs(Duration::ZERO);
        }
        self.work(id);
    }
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Outcome<String> {
        let mut arguments = command.consume_args();
        self.execute(&command.name, &mut arguments)?;
        arguments.reject_next()?;
        Ok(std::mem::take(&mut self.output))
    }
}

fn number(arguments: &mut ArgumentConsumer<'_>) -> Outcome<u64> {
    Ok(arguments.next_pos().ok_or("a number is missing")?.parse()?)
}

fn store_id(arguments: &mut ArgumentConsumer<'_>) -> Outcome<StoreId> {
    Ok(StoreId(number(arguments)?))
}

fn store_ids(arguments: &mut ArgumentConsumer<'_>) -> Outcome<Vec<StoreId>> {
    std::iter::from_fn(|| arguments.next_pos()).map(|id| Ok(StoreId(id.parse()?))).collect()
}

/// `1-2 2-1`
fn links(arguments: &mut ArgumentConsumer<'_>) -> Outcome<Vec<(StoreId, StoreId)>> {
    let link = |text: &str| {
        let (from, to) = text.split_once('-').ok_or("a link is FROM-TO")?;
        Ok((StoreId(from.parse()?), StoreId(to.parse()?)))
    };
    std::iter::from_fn(|| arguments.next_pos()).map(link).collect()
}

impl Script {
    fn execute(&mut self, name: &str, arguments: &mut ArgumentConsumer<'_>) -> Outcome<()> {
        match name {
            "cluster" => {
                let stores = number(arguments)?;
                self.configure(arguments)?;
                (1..=stores).for_each(|id| self.add_node(StoreId(id), &[region(stores)], None));
                (1..=stores).for_each(|id| self.work(StoreId(id)));
                self.output.clear(); // What every store observes at its start.
            }
            "new_store" => {
                let id = store_id(arguments)?;
                self.add_node(id, &[], Some(id.0));
            }
            "status" => {
                let ids = store_ids(arguments)?;
                for id in self.named_or_all(ids) {
                    let (node, now) = (&self.nodes[&id], self.nodes[&id].local(self.now));
                    let line = text::status(node, REGION, now);
                    self.line(format!("{id}: {line}"));
                }
            }
            "tick" | "run" => {
                let (ticks, ids) = (number(arguments)?, store_ids(arguments)?);
                let ids = self.named_or_all(ids);
                for _ in 0..ticks {
                    self.tick(&ids);
                    if name == "run" {
                        self.settle();
                    }
                }
            }
            "wait" => self.now += Duration::from_millis(number(arguments)?),
            "campaign" => {
                let id = store_id(arguments)?;
                self.handle(id, Event::Campaign { region: REGION });
            }
            "elect" => {
                let id = store_id(arguments)?;
                self.handle(id, Event::Campaign { region: REGION });
                self.settle();
                self.output.clear(); // `election` is the script about this.
            }
            "propose" => self.propose(arguments)?,
            "barrier" => {
                let id = store_id(arguments)?;
                self.request(id, "read barrier".into(), |ticket| Event::ReadBarrier {
                    region: REGION,
                    epoch: EPOCH,
                    ticket,
                });
            }
            "read" => self.read(arguments)?,
            "transfer" => {
                let (id, to) = (store_id(arguments)?, store_id(arguments)?);
                self.handle(id, Event::TransferLeader { region: REGION, to });
            }
            "add" | "remove" => self.change(name, arguments)?,
            other => return self.execute_fault(other, arguments),
        }
        Ok(())
    }

    /// Settings behind `cluster 3`, such as `follower_dead_ticks=5`.
    fn configure(&mut self, arguments: &mut ArgumentConsumer<'_>) -> Outcome<()> {
        while let Some((name, value)) = arguments.next_key() {
            match name {
                "follower_dead_ticks" => self.config.follower_dead_ticks = value.parse()?,
                "append_bytes_max" => self.config.append_bytes_max = value.parse()?,
                "truncate_entries_min" => self.config.truncate_entries_min = value.parse()?,
                other => return Err(format!("no such setting: {other}").into()),
            }
        }
        Ok(())
    }

    /// Commands about messages, disks and crashes.
    fn execute_fault(&mut self, name: &str, arguments: &mut ArgumentConsumer<'_>) -> Outcome<()> {
        match name {
            "deliver" => self.deliver(&links(arguments)?, false),
            "deliver_first" => {
                let mut packets = self.take(&links(arguments)?);
                let later = packets.split_off(packets.len().min(1));
                let others = std::mem::replace(&mut self.network, packets);
                self.deliver(&[], false);
                // What is sent in answer comes after what was on its way before.
                let answers = std::mem::replace(&mut self.network, later);
                self.network.extend(others);
                self.network.extend(answers);
            }
            "settle" => self.settle(),
            "messages" => {
                let lines: Vec<String> = (self.network.iter())
                    .map(|packet| format!("{}->{} {}", packet.from, packet.to, text::message(&packet.bytes)))
                    .collect();
                lines.into_iter().for_each(|line| self.line(line));
            }
            "drop" => drop(self.take(&links(arguments)?)),
            "duplicate" => {
                let packets = self.take(&links(arguments)?);
                for Packet { from, to, bytes } in packets {
                    self.network.extend([0, 1].map(|_| Packet { from, to, bytes: bytes.clone() }));
                }
            }
            "reverse" => {
                let mut packets = self.take(&links(arguments)?);
                packets.reverse();
                self.network.extend(packets);
            }
            "cut" => self.cut.extend(links(arguments)?),
            "isolate" => {
                let id = store_id(arguments)?;
                for other in self.nodes.keys().filter(|other| **other != id) {
                    self.cut.extend([(id, *other), (*other, id)]);
                }
                let cut = &self.cut;
                self.network.retain(|packet| !cut.contains(&(packet.from, packet.to)));
            }
            "heal" => self.cut.clear(),
            "hold_disk" => drop(self.held_disks.insert(store_id(arguments)?)),
            "hold_applies" => drop(self.held_applies.insert(store_id(arguments)?)),
            "release_disk" | "release_applies" => {
                let id = store_id(arguments)?;
                let held = if name == "release_disk" { &mut self.held_disks } else { &mut self.held_applies };
                held.remove(&id);
                self.work(id);
            }
            "crash" => {
                let id = store_id(arguments)?;
                self.node(id).crash(0);
                self.held_disks.remove(&id);
                self.held_applies.remove(&id);
                self.collect(id);
            }
            "start" => {
                let id = store_id(arguments)?;
                let (config, rng) = (self.config.clone(), self.rng.clone());
                self.node(id).start(&config, &rng);
                self.work(id);
            }
            "flush" => {
                let id = store_id(arguments)?;
                self.node(id).flush();
                self.work(id);
            }
            "snapshot_work" => {
                let (id, fails) = (store_id(arguments)?, arguments.next_pos() == Some("sends_fail"));
                self.snapshot_work(id, fails);
            }
            other => return Err(format!("no such command: {other}").into()),
        }
        Ok(())
    }

    fn named_or_all(&self, ids: Vec<StoreId>) -> Vec<StoreId> {
        if ids.is_empty() { self.nodes.keys().copied().collect() } else { ids }
    }

    /// `propose 1 k=v`, or with `version=0` in an outdated epoch.
    fn propose(&mut self, arguments: &mut ArgumentConsumer<'_>) -> Outcome<()> {
        let id = store_id(arguments)?;
        let version = arguments.take_key("version").map(str::parse).transpose()?.unwrap_or(EPOCH.version);
        let (key, value) = arguments.next_key().ok_or("a key and its value are missing")?;
        let mut batch = WriteBatch::new();
        batch.put(families::DEFAULT, key.as_bytes(), value.as_bytes());
        let epoch = Epoch { version, ..EPOCH };
        let propose = |ticket| Event::Propose { region: REGION, epoch, batch, ticket };
        self.request(id, format!("propose {key}={value}"), propose);
        Ok(())
    }

    /// Reads by lease.
    fn read(&mut self, arguments: &mut ArgumentConsumer<'_>) -> Outcome<()> {
        let (id, key) = (store_id(arguments)?, arguments.next_pos().ok_or("a key is missing")?);
        let node = &self.nodes[&id];
        let (local, visible) = (node.local(self.now), node.visible.clone());
        let read = node.readers.read(REGION, EPOCH, || local, || visible);
        let line = match read {
            Ok(readable) => match readable.view.get(families::DEFAULT, key.as_bytes())? {
                Some(value) => format!("{key}={}", value.escape_ascii()),
                None => format!("{key} is not there"),
            },
            Err(refusal) => refusal.to_string(),
        };
        self.line(format!("{id}: {line}"));
        Ok(())
    }

    /// `add 1 4`: at store 1, a replica on store 4.
    fn change(&mut self, name: &str, arguments: &mut ArgumentConsumer<'_>) -> Outcome<()> {
        let (id, store) = (store_id(arguments)?, store_id(arguments)?);
        let status = self.nodes[&id].store.as_ref().ok_or("it is down")?.status();
        let region = status.iter().find(|status| status.region.id == REGION).ok_or("no replica")?.region.clone();
        let conf_version = arguments.take_key("conf_version").map(str::parse).transpose()?;
        let epoch = Epoch { conf_version: conf_version.unwrap_or(region.epoch.conf_version), ..region.epoch };
        let change = match name {
            "add" => MemberChange::Add(Peer { id: replica_id(store.0, REGION), store }),
            _ => MemberChange::Remove(region.peer_on(store).map_or(PeerId(u64::MAX), |peer| peer.id)),
        };
        let command = command::Command { epoch, action: command::Action::ChangeMembers(change) };
        let request = |ticket| Event::Command { region: REGION, command: command.clone(), ticket };
        self.request(id, format!("{name} {store}"), request);
        Ok(())
    }
}

/// The scripts' paths.
fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let entries = std::fs::read_dir(folder).expect("the folder of scripts");
    let found: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    assert!(found.len() >= 20, "only {} scripts were found", found.len());
    found
}

#[test]
fn every_script_causes_what_it_says() {
    for path in scripts() {
        println!("{}", path.display());
        goldenscript::run(&mut Script::new(), &path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// The scripts can fail: each of these bugs changes what some script prints, or makes it panic.
#[cfg(feature = "planted-bugs")]
#[test]
fn scripts_find_planted_bugs() {
    use kontiki_raftstore::planted::Planted;
    let none = Planted::default();
    let bugs = [
        Planted { acknowledge_before_quorum: true, ..none },
        Planted { read_without_lease: true, ..none },
        Planted { vote_at_once_after_restart: true, ..none },
        Planted { lease_through_transfer: true, ..none },
        Planted { vote_not_persisted: true, ..none },
        Planted { messages_before_persist: true, ..none },
        Planted { readable_at_once: true, ..none },
    ];
    for planted in bugs {
        let found = scripts().iter().any(|path| {
            let text = std::fs::read_to_string(path).expect("readable");
            let output = std::panic::catch_unwind(|| {
                let mut script = Script::new();
                script.config.planted = planted;
                goldenscript::generate(&mut script, &text)
            });
            !matches!(output, Ok(Ok(output)) if output == text)
        });
        assert!(found, "no script finds {planted:?}");
    }
}
