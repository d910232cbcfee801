//! What a commit of raft logs costs at each place, on the real disk:
//! `cargo run --release -p kontiki-raftlog --example commit_cost -- DIRECTORY [ROUNDS]`.
//!
//! Each commit appends one entry of 128 bytes to each of some regions. "engine" is a commit to the engine without the
//! trait, what a node did before there were places.

use bytes::Bytes;
use kontiki_engine::{Commit, Db, Durability, Family, FamilySpec, Options, StreamId, StreamOp, WriteBatch};
use kontiki_env::Env;
use kontiki_raftlog::{FileOptions, LogChoice, Place, RaftLog};
use kontiki_state::{BuiltIn, StateEngine};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

const META: Family = Family::NODE_STATE[0];
const PLACE: Place = Place { family: META, choice_key: &[0x14], intent_key: &[0x15] };

fn open(env: &Env, path: &Path, choice: LogChoice) -> (Db, Arc<dyn RaftLog>) {
    let families = vec![FamilySpec::new(Family::DEFAULT, "default"), FamilySpec::new(META, "kontiki.meta")];
    let db = Db::open_in(env, path, Options { families, ..Options::default() }).expect("an empty directory");
    let state: Arc<dyn StateEngine> = Arc::new(BuiltIn::new(db.clone(), env, Options::default().table));
    let log = kontiki_raftlog::open(env, path, &state, PLACE, Some(choice), FileOptions::default());
    (db, log.expect("an empty directory"))
}

/// Microseconds for a commit, the median and the mean.
fn measure(env: &Env, regions: u64, commits: u64, mut write: impl FnMut(Commit)) -> (f64, f64) {
    let mut times: Vec<f64> = Vec::new();
    for index in 1..=commits {
        let entries = || vec![Bytes::from(vec![7; 128])];
        let append = |id| StreamOp::Append { stream: StreamId(id), first_index: index, entries: entries() };
        let streams = (0..regions).map(append).collect();
        let commit = Commit { streams, ..Commit::new(WriteBatch::new(), Durability::Sync) };
        let begin = env.clock.monotonic();
        write(commit);
        times.push((env.clock.monotonic() - begin).as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times.iter().sum::<f64>() / times.len() as f64)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("DIRECTORY");
    let rounds: u64 = arguments.next().map_or(3, |rounds| rounds.parse().expect("a number of rounds"));
    let env = Env::real();
    for round in 0..rounds {
        for (regions, commits) in [(1, 600), (10, 300), (100, 100)] {
            for (name, choice) in
                [("engine", None), ("shared", Some(LogChoice::Shared)), ("per-group", Some(LogChoice::PerGroup))]
            {
                let path = Path::new(&directory).join(format!("{round}-{regions}-{name}"));
                let (db, log) = open(&env, &path, choice.unwrap_or_default());
                let (send, receive) = channel();
                let (median, mean) = measure(&env, regions, commits, |commit| {
                    let done = send.clone();
                    match choice {
                        None => {
                            db.submit(commit, Box::new(move |result| done.send(result.map(drop)).expect("waited for")))
                        }
                        Some(_) => log.submit(commit, Box::new(move |result| done.send(result).expect("waited for"))),
                    }
                    receive.recv().expect("an answer").expect("a commit");
                });
                println!(
                    "round {round}: {regions:>3} regions, {name:<9}: median {median:>8.0} us, mean {mean:>8.0} us"
                );
                log.close();
                db.close().expect("a clean close");
            }
        }
    }
}
