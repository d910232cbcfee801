use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Whether it is refused.
fn refused(what: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(what)).is_err()
}

#[test]
fn locks_are_taken_by_ascending_rank_alone() {
    let (low, high, equal) = (Mutex::new(Rank::Log, ()), Mutex::new(Rank::Writes, ()), RwLock::new(Rank::Writes, ()));
    {
        let _low = low.lock();
        let _high = high.lock();
    }
    let held = high.lock();
    assert!(refused(|| drop(low.lock())), "a smaller rank");
    assert!(refused(|| drop(equal.read())), "the same rank");
    drop(held);
    drop(low.lock());
    let _read = equal.read();
    assert!(refused(|| drop(equal.read())), "twice for reading");
}

#[test]
fn a_lock_that_was_tried_for_counts_once_it_is_held() {
    let (low, high) = (Mutex::new(Rank::Log, ()), Mutex::new(Rank::Writes, ()));
    let _high = high.lock();
    let low = low.try_lock().expect("it is free");
    assert!(refused(|| drop(Mutex::new(Rank::DerivedQueue, ()).lock())));
    drop(low);
}

#[test]
fn a_wait_is_refused_under_locks_that_others_need_to_end_it() {
    let (coarse, log, progress) =
        (Mutex::new(Rank::Ingest, ()), Mutex::new(Rank::Log, ()), Mutex::new(Rank::Progress, ()));
    let condvar = Condvar::new();
    let wait = || _ = condvar.wait_for(&mut progress.lock(), Duration::from_micros(1));
    let _coarse = coarse.lock();
    wait();
    let _log = log.lock();
    assert!(refused(wait));
    assert!(refused(check_wait));
}

/// A deadlock that earlier builds had: the writer of a batch that others wait for under the log's lock needs that lock.
#[test]
fn a_thread_with_a_number_and_no_place_in_memory_takes_no_lock_that_orders_commits() {
    let (log, writes) = (Mutex::new(Rank::Log, ()), Mutex::new(Rank::Writes, ()));
    let unfinished = {
        let _log = log.lock();
        let _writes = writes.lock();
        Unfinished::begin()
    };
    drop(writes.lock());
    assert!(refused(|| drop(log.lock())));
    assert!(refused(check_wait));
    drop(unfinished);
    drop(log.lock());
    check_wait();
}
