//! Disks that are full, and syncs that fail.

use super::*;

#[test]
fn a_full_disk_refuses_a_commit_that_can_be_repeated() {
    for choice in DURABLE {
        for seed in 0..20 {
            let (script, models) = draw_script(seed, 60);
            let mut node = Node::started(seed, choice);
            let (mut rng, mut refused) = (Rng::new(seed), 0);
            for (number, commit) in script.iter().enumerate() {
                if rng.chance(1, 3) {
                    node.machine.fs.set_quota(Some(node.machine.fs.used_bytes() + rng.below(9_000)));
                }
                if let Err(error) = node.commit(commit) {
                    refused += 1;
                    assert!(error.is_retryable(), "{choice}: {error}");
                    // What is in the engine of a refused one is there again when it is repeated.
                    assert_eq!(node.contents().logs, models[number].logs, "{choice}, seed {seed}, commit {number}");
                    node.machine.fs.set_quota(None);
                    node.commit(commit).expect("there is space now");
                }
                node.machine.fs.set_quota(None);
                assert_eq!(node.contents(), models[number + 1], "{choice}, seed {seed}, commit {number}");
            }
            assert!(choice == LogChoice::Shared || refused > 0, "{choice}, seed {seed}: the disk was never full");
            node.crash(CrashMode::LoseUnsynced);
            node.start(None).expect("it starts");
            assert_eq!(node.contents(), models[script.len()], "{choice}, seed {seed}");
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_is_written_and_nothing_acknowledged_is_lost() {
    for choice in DURABLE {
        for seed in 0..20 {
            let (script, models) = draw_script(seed, 30);
            let mut node = Node::started(seed, choice);
            let before = 5 + Rng::new(seed).below(20) as usize;
            assert_eq!(run_script(&node, &script[..before]), before);
            let is_log = |path: &Path| {
                let mut names = path.components().map(|part| part.as_os_str().to_owned());
                names.any(|name| name == "wal" || name == DIRECTORY)
            };
            node.machine.fs.fail_next(Op::Sync, 1, is_log);
            let more = run_script(&node, &script[before..]);
            let failed = before + more;
            if failed == script.len() {
                continue; // None had to be synced.
            }
            let error = node.commit(&script[failed]).expect_err("it has stopped");
            assert!(!error.is_retryable(), "{error}");
            for mode in [CrashMode::Kill, CrashMode::LoseUnsynced] {
                node.crash(mode);
                node.start(None).expect("it starts");
                let found = node.contents();
                for (id, log) in &found.logs {
                    let is = |model: Option<&Model>| model.is_some_and(|model| model.logs.get(id) == Some(log));
                    let known = is(models.get(failed)) || is(models.get(failed + 1));
                    assert!(known, "{choice}, seed {seed}: {log:?} of {id:?} after {failed} commits");
                }
            }
        }
    }
}
