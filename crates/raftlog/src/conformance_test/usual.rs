//! Without faults.

use super::*;
use kontiki_engine::StreamHead;
use std::ops::ControlFlow;

/// Random commits, compared after each; now and then the node ends and starts again, if that is meant to work.
fn follows_the_model(choice: LogChoice, seed: u64) {
    let (script, models) = draw_script(seed, 150);
    let (mut node, mut rng) = (Node::started(seed, choice), Rng::new(seed));
    for (number, commit) in script.iter().enumerate() {
        node.commit(commit).expect("it fits");
        let expected = &models[number + 1];
        assert_eq!(node.contents(), *expected, "seed {seed}, commit {number}");
        compare_ranges(&node, expected, &mut rng);
        compare_scan(&node, expected);
        if choice != LogChoice::Memory && rng.chance(1, 8) {
            match rng.below(3) {
                0 => node.close(),
                1 => node.crash(CrashMode::Kill),
                _ => node.crash(CrashMode::LoseUnsynced),
            }
            compare_stopped(&mut node, expected);
            node.start(None).expect("it starts");
            assert_eq!(node.log().choice(), choice, "as the directory has it");
            assert_eq!(node.contents(), *expected, "seed {seed}, start after commit {number}");
        }
    }
}

/// One pass over all logs gives what reading each of them does.
fn compare_scan(node: &Node, model: &Model) {
    let mut logs: BTreeMap<StreamId, StreamContents> = BTreeMap::new();
    let mut ends = BTreeMap::new();
    for (id, head) in node.log().heads().expect("readable") {
        let StreamHead { truncated_through, state, last_index } = head;
        ends.insert(id, last_index);
        logs.insert(id, StreamContents { truncated_through, state, entries: Vec::new() });
    }
    let mut found: BTreeMap<(StreamId, u64), Bytes> = BTreeMap::new();
    let visit = &mut |id, index, entry: &[u8]| {
        found.insert((id, index), Bytes::copy_from_slice(entry));
        ControlFlow::Continue(())
    };
    node.log().scan(visit).expect("readable");
    for ((id, index), entry) in found {
        let log = logs.get_mut(&id).expect("it has a head");
        log.entries.push(entry);
        assert_eq!(log.truncated_through + log.entries.len() as u64, index, "none is missing");
    }
    for (id, log) in &logs {
        assert_eq!(ends[id], log.truncated_through + log.entries.len() as u64);
    }
    assert_eq!(logs, model.logs);
}

fn compare_ranges(node: &Node, model: &Model, rng: &mut Rng) {
    for id in (0..6).map(StreamId) {
        let (low, high) = model.ends(id);
        let begin = rng.range(low.saturating_sub(2)..high + 2);
        let range = begin..begin + rng.below(5);
        let found = node.log().entries(id, range.clone()).expect("readable");
        let expected: Vec<Bytes> = match model.logs.get(&id).filter(|_| begin >= low) {
            Some(log) => {
                log.entries.iter().skip((begin - low) as usize).take((range.end - begin) as usize).cloned().collect()
            }
            None => Vec::new(),
        };
        assert_eq!(found, expected, "{range:?} of {low}..{high}");
    }
}

/// What tools read of a node that does not run.
fn compare_stopped(node: &mut Node, model: &Model) {
    node.machine = node.machine.restarted(Rng::new(7));
    let env = node.machine.env();
    let db = kontiki_engine::Db::open_in(&env, Path::new(DATA), options()).expect("it opens");
    let stopped = StoppedLogs::open(&env, Path::new(DATA), &db, PLACE).expect("readable");
    let last = stopped.last_indices().expect("readable");
    assert_eq!(last, model.logs.keys().map(|id| (*id, model.ends(*id).1 - 1)).collect::<BTreeMap<_, _>>());
    for (id, log) in &model.logs {
        assert_eq!(stopped.read(*id).expect("readable"), *log);
    }
    db.close().expect("a clean close");
}

#[test]
fn a_shared_log_follows_the_model() {
    (0..12).for_each(|seed| follows_the_model(LogChoice::Shared, seed));
}

#[test]
fn files_follow_the_model() {
    (0..30).for_each(|seed| follows_the_model(LogChoice::PerGroup, seed));
}

#[test]
fn memory_follows_the_model() {
    (0..12).for_each(|seed| follows_the_model(LogChoice::Memory, seed));
}

#[test]
fn commits_that_do_not_fit_have_no_effect() {
    for choice in [LogChoice::Shared, LogChoice::PerGroup, LogChoice::Memory] {
        let node = Node::started(1, choice);
        let entry = || vec![Bytes::from_static(b"entry")];
        let good =
            TestCommit::of(vec![append(1, 1, entry()), StreamOp::Truncate { stream: StreamId(2), through_index: 7 }]);
        node.commit(&good).expect("it fits");
        let before = node.contents();
        let wrong = [append(1, 4, entry()), append(1, 0, entry()), append(2, 7, entry()), append(3, 2, entry())];
        for op in wrong {
            let put = Some((b"key 1".to_vec(), b"value".to_vec()));
            let error = node
                .commit(&TestCommit { streams: vec![append(1, 2, entry()), op], put })
                .expect_err("it does not fit");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{choice}: {error}");
            assert_eq!(node.contents(), before, "{choice}");
        }
        node.commit(&TestCommit::of(vec![append(1, 2, entry()), append(2, 8, entry())])).expect("it works on");
    }
}

#[test]
fn a_log_from_a_snapshot_drops_what_was_there() {
    for choice in [LogChoice::Shared, LogChoice::PerGroup, LogChoice::Memory] {
        let mut node = Node::started(2, choice);
        let entries = |text: &'static str| vec![Bytes::from_static(text.as_bytes()); 5];
        node.commit(&TestCommit::of(vec![append(1, 1, entries("old"))])).expect("it fits");
        let restored = vec![
            append(1, 4, vec![]),
            StreamOp::Truncate { stream: StreamId(1), through_index: 100 },
            StreamOp::State { stream: StreamId(1), state: Bytes::from_static(b"restored") },
            append(1, 101, entries("new")),
        ];
        node.commit(&TestCommit::of(restored)).expect("it fits");
        if choice != LogChoice::Memory {
            node.crash(CrashMode::LoseUnsynced);
            node.start(None).expect("it starts");
        }
        let log = node.log().read(StreamId(1)).expect("readable");
        assert_eq!(
            (log.truncated_through, log.state.as_ref(), log.entries),
            (100, &b"restored"[..], entries("new")),
            "{choice}"
        );
        assert_eq!(node.log().entries(StreamId(1), 100..103).expect("readable"), Vec::<Bytes>::new());
    }
}

#[test]
fn one_commit_has_hundreds_of_regions_and_few_files_are_open() {
    for choice in [LogChoice::Shared, LogChoice::PerGroup, LogChoice::Memory] {
        let mut node = Node::started(3, choice);
        for round in 1..=3 {
            let all = (0..300).map(|id| append(id, round, vec![Bytes::from(format!("{id} {round}"))])).collect();
            node.commit(&TestCommit::of(all)).expect("it fits");
            assert!(node.log().usage().open_files <= 3, "{:?}", node.log().usage());
        }
        if choice != LogChoice::Memory {
            node.crash(CrashMode::LoseUnsynced);
            node.start(None).expect("it starts");
        }
        assert_eq!(node.log().ids().len(), 300);
        for id in [0, 7, 299] {
            let expected: Vec<Bytes> = (1..=3).map(|round| Bytes::from(format!("{id} {round}"))).collect();
            assert_eq!(node.log().entries(StreamId(id), 1..9).expect("readable"), expected, "{choice}");
        }
        if choice == LogChoice::PerGroup {
            assert_eq!(node.log().usage().files, 300);
        }
    }
}

#[test]
fn a_file_does_not_keep_what_is_truncated() {
    let mut node = Node::started(4, LogChoice::PerGroup);
    let entry = Bytes::from(vec![7; 400]);
    for index in 1..=500 {
        let truncate = StreamOp::Truncate { stream: StreamId(1), through_index: index - index.min(3) };
        node.commit(&TestCommit::of(vec![append(1, index, vec![entry.clone()]), truncate])).expect("it fits");
        let usage = node.log().usage();
        assert!(usage.bytes <= 16 << 10, "{usage:?} at entry {index}");
    }
    let usage = node.log().usage();
    assert!(usage.rewrites > 50 && usage.rewritten_bytes < 2 * 500 * 400, "{usage:?}");
    assert_eq!(node.files().len(), 1);
    node.close();
    node.start(None).expect("it starts");
    assert_eq!(node.log().read(StreamId(1)).expect("readable").entries, vec![entry; 3]);
}
