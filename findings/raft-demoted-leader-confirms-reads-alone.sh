#!/usr/bin/env bash
# raft 0.7.0 (crates.io, the consensus core of TiKV): a leader that was demoted to a learner, in a group whose only voter
# is another replica, confirms a linearizable read (ReadIndex, the safe mode) at once, without a message to anybody.
#
# What happens: for a group with one voter the crate needs no quorum, because it takes this voter for the leader. After
# a demotion of the leader it is not: it goes on leading until it hears of a new term. The only voter may elect itself
# meanwhile and acknowledge writes; the demoted leader, cut off from it, still answers reads as confirmed, with its old
# commit index. A caller is safe if it asks for no read index at a leader that is no voter while there is one voter.
#
# The program commits the demotion with both replicas, lets the voter be elected and commit a write, delivers nothing
# more to the demoted leader, and asks that one for a read index.
#
# Seen with: raft 0.7.0 (protobuf codec), rustc 1.90 or later. Output:
#   demoted: node 1 leads in term 1, voters [2], learners [1]
#   elected: node 2 leads in term 2 and has committed index 4
#   read at node 1: confirmed at index 2 with 0 messages sent
#
# Needs: cargo, and access to crates.io. Exit code: 0 if the behaviour is as described, 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
raft = { version = "=0.7.0", default-features = false, features = ["protobuf-codec"] }
slog = "2"
protobuf = "2"
TOML
cat > src/main.rs <<'RUST'
use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, Entry, EntryType, Message};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};

type Node = RawNode<MemStorage>;

fn node(id: u64) -> Node {
    let config = Config { id, election_tick: 10, heartbeat_tick: 3, ..Config::default() };
    let storage = MemStorage::new_with_conf_state((vec![1, 2], vec![]));
    RawNode::new(&config, storage, &slog::Logger::root(slog::Discard, slog::o!())).unwrap()
}

fn apply(node: &mut Node, entries: Vec<Entry>) {
    for entry in entries.iter().filter(|entry| entry.get_entry_type() == EntryType::EntryConfChange) {
        let mut change = ConfChange::default();
        change.merge_from_bytes(&entry.data).unwrap();
        let state = node.apply_conf_change(&change).unwrap();
        node.mut_store().wl().set_conf_state(state);
    }
}

/// Does what a Ready asks for, durably and at once; returns the messages.
fn work(node: &mut Node) -> Vec<Message> {
    let mut messages = Vec::new();
    while node.has_ready() {
        let mut ready = node.ready();
        messages.extend(ready.take_messages());
        let committed = ready.take_committed_entries();
        apply(node, committed);
        node.mut_store().wl().append(ready.entries()).unwrap();
        if let Some(state) = ready.hs() {
            node.mut_store().wl().set_hardstate(state.clone());
        }
        messages.extend(ready.take_persisted_messages());
        let mut light = node.advance(ready);
        messages.extend(light.take_messages());
        let committed = light.take_committed_entries();
        apply(node, committed);
        node.advance_apply();
    }
    messages
}

/// Delivers messages between both until there are none.
fn exchange(one: &mut Node, two: &mut Node) {
    loop {
        let mut messages = work(one);
        messages.extend(work(two));
        if messages.is_empty() {
            return;
        }
        for message in messages {
            let to = if message.to == 1 { &mut *one } else { &mut *two };
            to.step(message).unwrap();
        }
    }
}

fn main() {
    let (mut one, mut two) = (node(1), node(2));
    one.campaign().unwrap();
    exchange(&mut one, &mut two);
    let mut change = ConfChange::default();
    change.set_change_type(ConfChangeType::AddLearnerNode);
    change.node_id = 1;
    one.propose_conf_change(Vec::new(), change).unwrap();
    exchange(&mut one, &mut two);
    let state = one.raft.prs().conf().to_conf_state();
    assert_eq!(one.raft.state, StateRole::Leader);
    println!("demoted: node 1 leads in term {}, voters {:?}, learners {:?}", one.raft.term, state.voters, state.learners);
    // From here on nothing reaches node 1.
    two.campaign().unwrap();
    work(&mut two);
    two.propose(Vec::new(), b"newer".to_vec()).unwrap();
    work(&mut two);
    println!("elected: node 2 leads in term {} and has committed index {}", two.raft.term, two.raft.raft_log.committed);
    one.read_index(b"read".to_vec());
    let (mut confirmed, mut sent) = (None, 0);
    while one.has_ready() {
        let mut ready = one.ready();
        sent += ready.take_messages().len();
        confirmed = confirmed.or(ready.read_states().first().map(|read| read.index));
        one.advance(ready);
    }
    match confirmed {
        Some(index) if sent == 0 && index < two.raft.raft_log.committed => {
            println!("read at node 1: confirmed at index {index} with 0 messages sent");
        }
        other => {
            println!("the behaviour has changed: {other:?}, {sent} messages");
            std::process::exit(1);
        }
    }
}
RUST
cargo run --quiet
