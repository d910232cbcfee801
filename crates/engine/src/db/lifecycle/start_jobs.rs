//! The jobs begin, and the parts of the engine below the database get what they call to wake them.

use crate::Range;
use crate::db::Core;
use crate::db::jobs::{dead_range_requests, log_maintenance};
use crate::db::shared::job_notifier::JobHandles;
use crate::dead_ranges::Hooks;
use kontiki_env::tasks::Progress;
use std::sync::Arc;
use std::time::Duration;

/// At the end of open.
pub(super) fn start_jobs(core: &Arc<Core>) {
    let spawn_idling = |name: &str, step: fn(&Core) -> bool, idle: Progress| {
        let (core, env) = (core.clone(), core.shared().env.clone());
        let job = name.to_string();
        let step = move || if core.write.guarded(&job, || step(&core)) { Progress::Worked } else { idle };
        env.tasks.spawn(name, Box::new(step))
    };
    let spawn = |name: &str, step: fn(&Core) -> bool| spawn_idling(name, step, Progress::Idle);
    let shared = core.shared();
    // Expired and old data is compacted without writes.
    let look = Progress::IdleFor(Duration::from_millis(shared.context.options.idle_look_ms));
    let compactions = shared.context.options.background_jobs_max;
    let more_compact = |core: &Core| core.background.more_compact_step(&core.write);
    shared.jobs.set(JobHandles {
        commit: spawn("commit", |core| core.write.commit_step()),
        log: spawn("log", |core| log_maintenance::make_next_segment(&core.write)),
        flush: spawn("flush", |core| core.background.flush_step(&core.write)),
        compact: spawn_idling(
            "compact",
            |core| {
                // The error stops writes, and the job with them.
                let _ = core.check_directory();
                core.background.compact_step(&core.write)
            },
            look,
        ),
        values: spawn("values", |core| core.background.values_step(&core.write)),
        more_compact: (1..compactions).map(|_| spawn("compact", more_compact)).collect(),
    });
    set_callbacks(core);
    set_dead_range_hooks(core);
    // Their first steps may have tried to wake each other before they were known.
    shared.jobs.wake_commit();
    shared.jobs.wake_compact();
}

fn set_callbacks(core: &Arc<Core>) {
    let context = &core.shared().context;
    let weak = Arc::downgrade(core);
    core.write.memtables.completions.set_on_panic(Box::new(move |panic| {
        weak.upgrade().iter().for_each(|core| core.write.stop_after_panic("the answer to a submitted commit", panic));
    }));
    let weak = Arc::downgrade(core);
    context.versions.horizon().set_snapshots(Box::new(move || {
        weak.upgrade().map_or(u64::MAX, |core| core.write.memtables.oldest_snapshot())
    }));
    let weak = Arc::downgrade(core);
    context.state.set_wake(Box::new(move || weak.upgrade().iter().for_each(|core| core.shared().jobs.wake_compact())));
    // Files wait for their removal from the moment their last reader is dropped.
    let weak = Arc::downgrade(core);
    context
        .versions
        .set_on_obsolete(Box::new(move || weak.upgrade().iter().for_each(|core| core.shared().jobs.wake_removal())));
}

fn set_dead_range_hooks(core: &Arc<Core>) {
    let weak = Arc::downgrade(core);
    let is_unchanged = move |family, range: &Range, since| {
        weak.upgrade().is_some_and(|core| dead_range_requests::is_range_unchanged(&core.write, family, range, since))
    };
    let weak = Arc::downgrade(core);
    let request =
        move |request| weak.upgrade().iter().for_each(|core| dead_range_requests::request(&core.write, &request));
    core.write.memtables.dead.set_hooks(Hooks { is_unchanged: Box::new(is_unchanged), request: Box::new(request) });
}
