//! Logs that move from one place to another at a start.

use super::*;

fn other(choice: LogChoice) -> LogChoice {
    if choice == LogChoice::Shared { LogChoice::PerGroup } else { LogChoice::Shared }
}

/// A stopped node with a script's commits.
fn written(choice: LogChoice, seed: u64) -> (Node, Model) {
    let (script, models) = draw_script(seed, 40);
    let mut node = Node::started(seed, choice);
    assert_eq!(run_script(&node, &script), script.len());
    node.crash(CrashMode::LoseUnsynced);
    (node, models[script.len()].clone())
}

#[test]
fn logs_move_back_and_forth() {
    for seed in 0..6 {
        let (mut node, mut model) = written(LogChoice::Shared, seed);
        let mut rng = Rng::new(seed);
        for round in 0..6 {
            let choice = if round % 2 == 0 { LogChoice::PerGroup } else { LogChoice::Shared };
            node.start(Some(choice)).expect("it starts");
            assert_eq!((node.log().choice(), node.contents()), (choice, model.clone()), "seed {seed}, round {round}");
            assert_eq!(node.files().is_empty(), choice == LogChoice::Shared);
            let streams = node.up.as_ref().expect("it is up").0.built_in().expect("the engine").streams();
            assert_eq!(streams.is_empty(), choice == LogChoice::PerGroup, "each log is at one place");
            let commit = TestCommit::draw(&mut rng, 1000 + round, &model);
            node.commit(&commit).expect("it fits");
            model.apply(&commit);
            if rng.chance(1, 2) { node.close() } else { node.crash(CrashMode::LoseUnsynced) }
        }
    }
}

/// Cuts the power at each operation of a start that moves the logs. Returns an error, or the number of operations.
fn lose_power_in_a_move(choice: LogChoice, seed: u64) -> std::result::Result<u64, String> {
    let modes = [CrashMode::LoseUnsynced, CrashMode::Random, CrashMode::KeepUnsynced];
    for operation in 0.. {
        let (mut node, model) = written(choice, seed);
        node.machine.fs.power_off_after(operation);
        let moved = node.start(Some(other(choice)));
        if !node.machine.fs.is_off() {
            moved.map_err(|error| error.to_string())?;
            return Ok(operation);
        }
        node.crash(modes[operation as usize % 3]);
        // Next it starts there, or where it was, or where the directory says.
        let wanted = [Some(other(choice)), Some(choice), None][operation as usize / 3 % 3];
        node.start(wanted).map_err(|error| error.to_string())?;
        if node.contents() != model {
            return Err(format!("{choice}, operation {operation}: {:?} is not {model:?}", node.contents()));
        }
        let commit = TestCommit::draw(&mut Rng::new(operation), 1000, &model);
        node.commit(&commit).map_err(|error| error.to_string())?;
        let expected = node.contents();
        node.crash(CrashMode::LoseUnsynced);
        node.start(Some(choice)).map_err(|error| error.to_string())?;
        if node.contents() != expected {
            return Err(format!("{choice}, operation {operation}: a commit after the move is lost"));
        }
    }
    unreachable!("a move ends")
}

#[test]
fn a_power_loss_in_a_move_loses_nothing() {
    for choice in DURABLE {
        for seed in 0..3 {
            let operations = lose_power_in_a_move(choice, seed).expect("whole");
            assert!(operations > 10, "{operations} operations");
        }
    }
}

#[test]
fn a_move_that_is_recorded_too_early_is_found() {
    planted::set(Some(Bug::ConvertedTooEarly));
    let found = DURABLE.map(|choice| lose_power_in_a_move(choice, 0).is_ok());
    planted::set(None);
    assert_eq!(found, [false, false]);
}

#[test]
fn a_move_without_space_leaves_the_logs_where_they_are() {
    for choice in DURABLE {
        let (mut node, model) = written(choice, 5);
        node.start(None).expect("it starts");
        node.close();
        let used = node.machine.fs.used_bytes();
        // An open of the engine alone needs some.
        let space = if choice == LogChoice::Shared { 40 << 10 } else { 36 << 10 };
        node.machine.fs.set_quota(Some(used + space));
        let moved = node.start(Some(other(choice)));
        if let Err(error) = &moved {
            assert!(error.to_string().contains("free some space"), "{error}");
        }
        node.crash(CrashMode::Kill);
        node.machine.fs.set_quota(None);
        node.start(None).expect("it starts");
        assert_eq!(node.contents(), model);
        assert_eq!(node.log().choice(), if moved.is_ok() { other(choice) } else { choice });
    }
}

#[test]
fn memory_is_for_directories_without_state_and_does_not_survive() {
    let (mut node, _) = written(LogChoice::PerGroup, 1);
    let error = node.start(Some(LogChoice::Memory)).expect_err("it has logs");
    assert!(error.to_string().contains("survive no restart"), "{error}");
    let mut node = Node::started(1, LogChoice::Memory);
    node.commit(&TestCommit::of(vec![append(1, 1, vec![Bytes::from_static(b"entry")])])).expect("it fits");
    node.close();
    for wanted in [None, Some(LogChoice::Shared), Some(LogChoice::Memory)] {
        let error = node.start(wanted).expect_err("they are lost");
        assert!(error.to_string().contains("are lost"), "{error}");
    }
}
