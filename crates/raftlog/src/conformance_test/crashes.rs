//! Power losses, and kills of the process, at every operation of the disk.

use super::*;

/// After a kill the next start relies on what the system has and the disk may not; a power loss follows.
const MODES: [CrashMode; 4] = [CrashMode::LoseUnsynced, CrashMode::Random, CrashMode::KeepUnsynced, CrashMode::Kill];

/// Whether the contents are what a crash may leave after `acknowledged` commits of the script; the next one was in
/// flight.
fn is_possible(found: &Model, script: &[TestCommit], models: &[Model], acknowledged: usize) -> bool {
    let before = &models[acknowledged];
    let Some(after) = models.get(acknowledged + 1) else { return found == before };
    if script[acknowledged].is_atomic() {
        return found == before || found == after;
    }
    let ids = before.logs.keys().chain(after.logs.keys()).chain(found.logs.keys());
    let mut logs = ids.map(|id| (found.logs.get(id), before.logs.get(id), after.logs.get(id)));
    found.keys == before.keys && logs.all(|(found, before, after)| found == before || found == after)
}

/// Cuts the power at an operation of a script, and compares after the next start; then once more. `Err`: what is wrong.
fn lose_power_at(choice: LogChoice, seed: u64, operation: u64) -> std::result::Result<bool, String> {
    let (script, models) = draw_script(seed, 24);
    let mut node = Node::started(seed, choice);
    node.machine.fs.power_off_after(operation);
    let acknowledged = run_script(&node, &script);
    if !node.machine.fs.is_off() {
        return Ok(false);
    }
    let mode = MODES[operation as usize % MODES.len()];
    node.crash(mode);
    // Every third start moves the logs.
    let other = if choice == LogChoice::Shared { LogChoice::PerGroup } else { LogChoice::Shared };
    node.start(operation.is_multiple_of(3).then_some(other)).map_err(|error| error.to_string())?;
    let found = node.contents();
    if !is_possible(&found, &script, &models, acknowledged) {
        let (before, commit) = (&models[acknowledged], &script[acknowledged]);
        return Err(format!("{found:#?} after {acknowledged} commits, {mode:?}: it was {before:#?}, and {commit:#?}"));
    }
    let (mut model, mut rng) = (found, Rng::new(operation));
    for number in 100..103 {
        let commit = TestCommit::draw(&mut rng, number, &model);
        node.commit(&commit).map_err(|error| error.to_string())?;
        model.apply(&commit);
    }
    node.crash(CrashMode::LoseUnsynced);
    node.start(None).map_err(|error| error.to_string())?;
    if node.contents() != model { Err("what was written after the crash is lost".into()) } else { Ok(true) }
}

fn lose_power_everywhere(choice: LogChoice, seeds: Range<u64>, step: usize) -> std::result::Result<(), String> {
    for seed in seeds {
        for operation in (0..).step_by(step) {
            let tried = lose_power_at(choice, seed, operation);
            let tried = tried.map_err(|what| format!("seed {seed}, operation {operation}: {what}"))?;
            if !tried {
                assert!(operation > 20, "the script has operations");
                break;
            }
        }
    }
    Ok(())
}

#[test]
fn a_shared_log_survives_a_power_loss_at_every_operation() {
    lose_power_everywhere(LogChoice::Shared, 0..4, 1).expect("whole");
}

#[test]
fn files_survive_a_power_loss_at_every_operation() {
    lose_power_everywhere(LogChoice::PerGroup, 0..10, 1).expect("whole");
}

/// The tests can fail.
#[test]
fn planted_bugs_are_found() {
    for bug in [Bug::FilesNotSynced, Bug::NoDirectorySync, Bug::NoIntent] {
        planted::set(Some(bug));
        let found = std::panic::catch_unwind(|| lose_power_everywhere(LogChoice::PerGroup, 0..10, 1));
        planted::set(None);
        assert!(!matches!(found, Ok(Ok(()))), "{bug:?} is not found");
    }
}
