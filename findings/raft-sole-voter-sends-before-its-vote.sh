#!/usr/bin/env bash
# raft 0.7.0 (crates.io, the consensus core of TiKV): the only voter of a group that has a learner hands out the entries
# of a new term as messages that "can be sent immediately", in the same Ready whose hard state makes that term durable.
#
# What happens: a leader may send entries before its own write is durable, because with several voters its term is
# durable by then: they have voted for it after it had written its vote. The only voter elects itself within one call,
# so nothing has been written. If it sends, crashes before the write, and starts again, it leads in the same term a
# second time, and sends other entries for the same index and term. A learner that got the first ones takes both leaders
# for one, and its log differs from the leader's for good. The program below does only what the crate's documentation
# says for writes that do not block (`advance_append_async`): take the Ready, send `messages()`, write meanwhile; the
# power fails before the write is done.
#
# A caller is safe if it holds messages() back while a changed term or vote is not durable, too.
#
# Seen with: raft 0.7.0 (protobuf codec), rustc 1.90 or later. Output:
#   first life: must_sync true, hard state (term 1, vote 1); sent at once: index 1 of term 1 = "", index 2 of term 1 = "first"
#   second life: must_sync true, hard state (term 1, vote 1); sent at once: index 1 of term 1 = "", index 2 of term 1 = "other"
#   the learner has got two entries of one index and term: "first" and "other"
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
TOML
cat > src/main.rs <<'RUST'
use raft::eraftpb::{Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode};

/// One life of the only voter: it elects itself, gets a proposal, takes its Ready, sends what it may, and crashes before
/// it has written anything. Returns the entries that were sent.
fn life(name: &str, storage: MemStorage, proposal: &str) -> Vec<(u64, u64, String)> {
    let config = Config { id: 1, election_tick: 10, heartbeat_tick: 3, pre_vote: true, check_quorum: true, ..Config::default() };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let mut node = RawNode::new(&config, storage, &logger).unwrap();
    node.campaign().unwrap();
    node.propose(Vec::new(), proposal.as_bytes().to_vec()).unwrap();
    let (mut sent, mut state, mut must_sync) = (Vec::new(), None, false);
    // The writes of both are still on their way when the learner has answered the first message.
    for _ in 0..2 {
        let ready = node.ready();
        state = state.or(ready.hs().map(|state| (state.term, state.vote)));
        must_sync |= ready.must_sync();
        for message in ready.messages() {
            if message.get_msg_type() == MessageType::MsgAppend {
                let text = |entry: &Entry| (entry.index, entry.term, String::from_utf8_lossy(&entry.data).into_owned());
                sent.extend(message.get_entries().iter().map(text));
            }
        }
        // Readable at once, as the crate wants it, and not durable: the next life begins without it.
        node.mut_store().wl().append(ready.entries()).unwrap();
        node.advance_append_async(ready);
        let mut answer = Message::default();
        answer.set_msg_type(MessageType::MsgAppendResponse);
        (answer.from, answer.to, answer.term, answer.index) = (2, 1, 1, 1);
        node.step(answer).unwrap();
    }
    sent.sort();
    sent.dedup();
    let list: Vec<String> = sent.iter().map(|(index, term, data)| format!("index {index} of term {term} = {data:?}")).collect();
    let (term, vote) = state.unwrap_or_default();
    println!("{name}: must_sync {must_sync}, hard state (term {term}, vote {vote}); sent at once: {}", list.join(", "));
    sent
}

fn main() {
    // What is durable: an empty log, one voter, one learner.
    let durable = || MemStorage::new_with_conf_state((vec![1], vec![2]));
    let first = life("first life", durable(), "first");
    let second = life("second life", durable(), "other");
    let same_place = |a: &(u64, u64, String), b: &(u64, u64, String)| (a.0, a.1) == (b.0, b.1) && a.2 != b.2;
    match first.iter().find_map(|a| second.iter().find(|b| same_place(a, b)).map(|b| (a, b))) {
        Some((a, b)) => println!("the learner has got two entries of one index and term: {:?} and {:?}", a.2, b.2),
        None => {
            println!("the behaviour has changed");
            std::process::exit(1);
        }
    }
}
RUST
cargo run --quiet
