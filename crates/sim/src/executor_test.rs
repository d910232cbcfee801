use super::{Executor, Group};
use kontiki_env::clock::VirtualTime;
use kontiki_env::rng::Rng;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const A: Group = Group(1);
const B: Group = Group(2);

type Log = Rc<RefCell<Vec<String>>>;

fn executor(seed: u64) -> (Executor, VirtualTime, Log) {
    let time = VirtualTime::default();
    (Executor::new(Rng::new(seed), time.clone()), time, Log::default())
}

/// A task that logs its name and sleeps, `times` times.
fn spawn_walker(executor: &Executor, log: &Log, group: Group, name: &'static str, step_ms: u64, times: u32) {
    let (own, log) = (executor.clone(), Rc::clone(log));
    executor.spawn(group, async move {
        for _ in 0..times {
            own.sleep(Duration::from_millis(step_ms)).await;
            log.borrow_mut().push(format!("{name}{}", own.now().as_millis()));
        }
    });
}

fn run(executor: &Executor, time: &VirtualTime) {
    executor.run_until_stalled();
    while let Some(at) = executor.next_timer() {
        time.advance_to(at);
        executor.fire_timers();
        executor.run_until_stalled();
    }
}

#[test]
fn sleeps_end_in_the_order_of_virtual_time() {
    let (executor, time, log) = executor(1);
    spawn_walker(&executor, &log, A, "a", 20, 2);
    spawn_walker(&executor, &log, A, "b", 15, 2);
    run(&executor, &time);
    assert_eq!(*log.borrow(), ["b15", "a20", "b30", "a40"]);
    assert_eq!(executor.count(A), 0);
}

#[test]
fn the_seed_decides_among_ready_tasks() {
    let order = |seed| {
        let (executor, time, log) = executor(seed);
        for name in ["a", "b", "c", "d", "e"] {
            spawn_walker(&executor, &log, A, name, 10, 3);
        }
        run(&executor, &time);
        log.take()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
}

#[test]
fn a_killed_group_ends_and_what_it_owned_is_dropped() {
    struct OnDrop(Executor, Log);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.1.borrow_mut().push("dropped".into());
            self.0.spawn(B, async {}); // The executor can be used while it kills.
        }
    }
    let (executor, time, log) = executor(1);
    let guard = OnDrop(executor.clone(), Rc::clone(&log));
    let own = executor.clone();
    executor.spawn(A, async move {
        let _guard = guard;
        own.sleep(Duration::from_secs(1)).await;
    });
    spawn_walker(&executor, &log, B, "b", 5, 1);
    executor.run_until_stalled();
    executor.kill(A);
    assert_eq!((executor.count(A), executor.count(B)), (0, 2));
    run(&executor, &time);
    assert_eq!(*log.borrow(), ["dropped", "b5"]);
}

#[test]
fn a_task_may_kill_its_own_group() {
    let (executor, _, log) = executor(1);
    let (own, of_task) = (executor.clone(), Rc::clone(&log));
    executor.spawn(A, async move {
        own.kill(A);
        of_task.borrow_mut().push("still in its last poll".into());
        own.sleep(Duration::from_secs(1)).await;
        of_task.borrow_mut().push("never".into());
    });
    executor.run_until_stalled();
    assert_eq!(executor.next_timer(), None, "its sleep was dropped with it");
    assert_eq!(log.borrow().len(), 1);
}

#[test]
fn a_paused_group_stands_still_and_goes_on() {
    let (executor, time, log) = executor(1);
    spawn_walker(&executor, &log, A, "a", 10, 1);
    spawn_walker(&executor, &log, B, "b", 10, 1);
    executor.run_until_stalled();
    executor.pause(A);
    run(&executor, &time);
    assert_eq!(*log.borrow(), ["b10"]);
    executor.resume(A);
    executor.run_until_stalled();
    assert_eq!(*log.borrow(), ["b10", "a10"]);
}
