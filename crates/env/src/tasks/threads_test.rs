use super::Threads;
use crate::tasks::{Progress, TaskHandle, Tasks};
use parking_lot::{Condvar, Mutex};
use std::sync::{Arc, mpsc};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn a_job_starts_runnable_and_runs_until_idle() {
    let (sender, receiver) = mpsc::channel();
    let mut left = 3;
    let handle = Threads.spawn(
        "count",
        Box::new(move || {
            left -= 1;
            sender.send(left).unwrap();
            if left > 0 { Progress::Worked } else { Progress::Idle }
        }),
    );
    let seen: Vec<i32> = (0..3).map(|_| receiver.recv_timeout(DEADLINE).unwrap()).collect();
    assert_eq!(seen, [2, 1, 0]);
    drop(handle);
    assert!(receiver.recv().is_err(), "the job was dropped with its handle and did not run again");
}

#[test]
fn no_wake_is_lost_while_a_step_runs() {
    let (started, on_started) = mpsc::channel();
    let (go, on_go) = mpsc::channel::<()>();
    let handle = Threads.spawn(
        "slow",
        Box::new(move || {
            started.send(()).unwrap();
            on_go.recv().ok();
            Progress::Idle
        }),
    );
    on_started.recv_timeout(DEADLINE).unwrap();
    handle.wake(); // in the middle of the first step
    go.send(()).unwrap();
    on_started.recv_timeout(DEADLINE).unwrap();
    drop(go);
    drop(handle);
}

#[test]
fn drop_waits_for_the_step_in_progress() {
    let (started, on_started) = mpsc::channel();
    let (go, on_go) = mpsc::channel::<()>();
    let finished = Arc::new(Mutex::new(false));
    let of_job = Arc::clone(&finished);
    let handle = Threads.spawn(
        "slow",
        Box::new(move || {
            started.send(()).unwrap();
            on_go.recv().ok();
            *of_job.lock() = true;
            Progress::Idle
        }),
    );
    on_started.recv_timeout(DEADLINE).unwrap();
    let releaser = std::thread::spawn(move || go.send(()).unwrap());
    drop(handle);
    assert!(*finished.lock());
    releaser.join().unwrap();
}

#[test]
fn a_job_may_drop_its_own_handle() {
    type Slot = Arc<(Mutex<Option<Box<dyn TaskHandle>>>, Condvar)>;
    let slot: Slot = Arc::default();
    let of_job = Arc::clone(&slot);
    let (dropped, on_dropped) = mpsc::channel();
    let handle = Threads.spawn(
        "own",
        Box::new(move || {
            let mut own = of_job.0.lock();
            while own.is_none() {
                of_job.1.wait(&mut own);
            }
            own.take();
            dropped.send(()).unwrap();
            Progress::Worked
        }),
    );
    *slot.0.lock() = Some(handle);
    slot.1.notify_all();
    on_dropped.recv_timeout(DEADLINE).unwrap();
    assert_eq!(on_dropped.recv_timeout(DEADLINE), Err(mpsc::RecvTimeoutError::Disconnected), "it ended after its step");
}

#[test]
fn a_panic_reaches_the_owner() {
    let (started, on_started) = mpsc::channel();
    let handle = Threads.spawn(
        "broken",
        Box::new(move || {
            started.send(()).unwrap();
            panic!("broken invariant")
        }),
    );
    on_started.recv_timeout(DEADLINE).unwrap();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(handle))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"broken invariant"));
}

#[test]
fn a_job_that_idles_for_a_while_comes_back_by_itself_and_ends_at_once() {
    let (sender, receiver) = mpsc::channel();
    let mut waits = vec![Duration::from_secs(3600), Duration::from_millis(1), Duration::from_millis(1)];
    let handle = Threads.spawn(
        "look",
        Box::new(move || {
            sender.send(waits.len()).unwrap();
            Progress::IdleFor(waits.pop().unwrap_or(Duration::from_secs(3600)))
        }),
    );
    let seen: Vec<usize> = (0..3).map(|_| receiver.recv_timeout(DEADLINE).unwrap()).collect();
    assert_eq!(seen, [3, 2, 1], "without a wake");
    handle.wake();
    assert_eq!(receiver.recv_timeout(DEADLINE).unwrap(), 0, "a wake ends the wait");
    drop(handle); // does not wait an hour
}
