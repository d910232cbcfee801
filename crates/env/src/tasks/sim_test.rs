use super::SimTasks;
use crate::rng::Rng;
use crate::tasks::{Progress, TaskHandle, Tasks};
use parking_lot::Mutex;
use std::sync::Arc;

type Log = Arc<Mutex<Vec<&'static str>>>;

fn logging(log: &Log, name: &'static str, mut times: u32) -> super::Job {
    let log = Arc::clone(log);
    Box::new(move || {
        log.lock().push(name);
        times = times.saturating_sub(1);
        if times > 0 { Progress::Worked } else { Progress::Idle }
    })
}

#[test]
fn jobs_run_when_stepped_and_rest_when_idle() {
    let (tasks, log) = (SimTasks::new(Rng::new(1)), Log::default());
    assert!(!tasks.threaded() && !tasks.step());
    let handle = tasks.spawn("a", logging(&log, "a", 3));
    assert_eq!(tasks.runnable(), ["a"]);
    assert_eq!(tasks.run_until_idle(10), 3);
    handle.wake();
    handle.wake();
    assert_eq!(tasks.run_until_idle(10), 1);
    handle.wake();
    drop(handle);
    assert!(!tasks.step());
    assert_eq!(log.lock().len(), 4);
}

#[test]
fn the_seed_decides_the_order() {
    let order = |seed| {
        let (tasks, log) = (SimTasks::new(Rng::new(seed)), Log::default());
        let _handles = ["a", "b", "c"].map(|name| tasks.spawn(name, logging(&log, name, 10)));
        tasks.run_until_idle(100);
        log.lock().clone()
    };
    assert_eq!(order(5), order(5));
    assert_ne!(order(5), order(6));
}

#[test]
fn a_waiting_job_steps_others_but_never_itself() {
    let (tasks, log) = (SimTasks::new(Rng::new(1)), Log::default());
    let (of_job, of_job_log) = (tasks.clone(), Arc::clone(&log));
    let a = tasks.spawn(
        "a",
        Box::new(move || {
            of_job_log.lock().push("a begins");
            while of_job.step() {}
            of_job_log.lock().push("a ends");
            Progress::Idle
        }),
    );
    let b = tasks.spawn("b", logging(&log, "b", 2));
    while tasks.step() {}
    log.lock().clear();
    a.wake();
    let own: Log = Arc::clone(&log);
    b.wake();
    while tasks.step() {}
    let log = own.lock();
    let (begin, end) =
        (log.iter().position(|e| *e == "a begins").unwrap(), log.iter().position(|e| *e == "a ends").unwrap());
    assert!(log[begin + 1..end].iter().all(|event| *event == "b"), "{log:?}");
    assert_eq!(log.len(), 3);
}

#[test]
fn a_job_may_drop_its_own_handle() {
    let tasks = SimTasks::new(Rng::new(1));
    let slot: Arc<Mutex<Option<Box<dyn TaskHandle>>>> = Arc::default();
    let of_job = Arc::clone(&slot);
    let handle = tasks.spawn(
        "own",
        Box::new(move || {
            of_job.lock().take();
            Progress::Worked
        }),
    );
    *slot.lock() = Some(handle);
    assert!(tasks.step());
    assert!(!tasks.step(), "it ended after its step");
}

#[test]
fn a_world_can_step_some_jobs_and_let_others_wait() {
    let (tasks, log) = (SimTasks::new(Rng::new(1)), Log::default());
    let _handles = ["slow", "quick"].map(|name| tasks.spawn(name, logging(&log, name, 1)));
    assert!(tasks.step_of(|name| name != "slow") && !tasks.step_of(|name| name != "slow"));
    assert!(tasks.is_runnable() && !tasks.is_runnable_of(|name| name != "slow"));
    assert!(tasks.step_of(|name| name == "slow"));
    assert_eq!(*log.lock(), ["quick", "slow"]);
}
