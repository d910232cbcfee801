use super::*;
use crate::action::{self, PessimisticRollback};
use crate::testing::{MapStore, error_of, prewrite, put};
use crate::{Mutation, PessimisticAction, Prewrite};

fn lock(keys: &[&'static str], start: u64, for_update: u64) -> PessimisticLock {
    PessimisticLock {
        keys: keys.iter().map(|key| KeyToLock { key: (*key).into(), must_not_exist: false }).collect(),
        primary: keys[0].into(),
        start_ts: TimeStamp(start),
        ttl_ms: 3000,
        for_update_ts: TimeStamp(for_update),
        min_commit_ts: TimeStamp::ZERO,
        return_values: true,
        check_existence: false,
        lock_only_if_exists: false,
        allow_conflict: false,
    }
}

impl MapStore {
    fn lock(&mut self, command: &PessimisticLock) -> Result<Vec<LockedKey>, ActionFailure> {
        self.run(|view| pessimistic_lock(command, view))
    }
}

/// A prewrite under locks.
fn prewrite_held(keys: &[&'static str], start: u64, for_update: u64) -> Prewrite {
    let mutations: Vec<_> = keys.iter().map(|key| (*key, put("new"))).collect();
    let mut command = prewrite(&mutations, keys[0], start);
    command.for_update_ts = TimeStamp(for_update);
    let held = |mutation: Mutation| Mutation { pessimistic: PessimisticAction::CheckLock, ..mutation };
    command.mutations = command.mutations.into_iter().map(held).collect();
    command
}

#[test]
fn a_lock_shows_the_newest_value_and_keeps_others_out() {
    let mut store = MapStore::default();
    store.committed("a", "1", 5, 8);
    let locked = store.lock(&lock(&["a", "b"], 7, 9)).unwrap();
    assert_eq!(locked[0], LockedKey { value: Some("1".into()), exists: true, conflict_ts: TimeStamp::ZERO });
    assert_eq!(locked[1], LockedKey::default());
    assert!(matches!(error_of(store.lock(&lock(&["b"], 20, 20))), KeyError::Locked(_)));
    assert_eq!(store.get_at("a", 30).unwrap().unwrap(), "1", "readers are not blocked");
    store.prewrite(&prewrite_held(&["a", "b"], 7, 9)).unwrap();
    store.commit(&["a", "b"], 7, 31).unwrap();
    assert_eq!(store.get_at("a", 31).unwrap().unwrap(), "new", "though it was committed after the transaction began");
}

#[test]
fn a_commit_above_the_for_update_timestamp_is_a_conflict() {
    let mut store = MapStore::default();
    store.committed("a", "1", 5, 8);
    let conflict = error_of(store.lock(&lock(&["a"], 6, 7)));
    assert!(matches!(
        conflict,
        KeyError::WriteConflict { reason: ConflictReason::PessimisticRetry, conflict_commit_ts: TimeStamp(8), .. }
    ));
    let forced = PessimisticLock { allow_conflict: true, return_values: false, ..lock(&["a"], 6, 7) };
    let locked = store.lock(&forced).unwrap();
    assert_eq!(locked, [LockedKey { value: Some("1".into()), exists: true, conflict_ts: TimeStamp(8) }]);
    // The lock is as of that commit: it may be taken again.
    store.lock(&lock(&["a"], 6, 8)).unwrap();
}

#[test]
fn repeating_it_changes_nothing_and_a_later_timestamp_is_taken_over() {
    let mut store = MapStore::default();
    store.lock(&lock(&["a"], 5, 5)).unwrap();
    let (_, batch) = pessimistic_lock(&lock(&["a"], 5, 5), &store).unwrap();
    assert!(batch.is_empty());
    store.lock(&lock(&["a"], 5, 9)).unwrap();
    let rollback = |store: &mut MapStore, for_update_ts| {
        let command = PessimisticRollback { keys: vec!["a".into()], start_ts: TimeStamp(5), for_update_ts };
        store.run(|view| action::pessimistic_rollback(&command, view)).unwrap();
        store.family(TXN_LOCK).len()
    };
    assert_eq!(rollback(&mut store, TimeStamp(8)), 1, "of an earlier request");
    assert_eq!(rollback(&mut store, TimeStamp(9)), 0);
    store.lock(&lock(&["a"], 5, 10)).expect("there is no record of it");
}

#[test]
fn a_decided_transaction_locks_nothing() {
    let mut store = MapStore::default();
    store.rollback(&["a"], 5).unwrap();
    let refused = error_of(store.lock(&lock(&["a"], 5, 6)));
    assert!(matches!(refused, KeyError::WriteConflict { reason: ConflictReason::SelfRolledBack, .. }));
    store.committed("b", "1", 5, 8);
    assert!(matches!(error_of(store.lock(&lock(&["b"], 5, 9))), KeyError::AlreadyCommitted { .. }));
    store.prewrite(&prewrite(&[("c", put("1"))], "c", 5)).unwrap();
    assert!(matches!(error_of(store.lock(&lock(&["c"], 5, 9))), KeyError::Abort(_)));
}

#[test]
fn existence_is_checked_and_locked_only_if_asked() {
    let mut store = MapStore::default();
    store.committed("a", "1", 5, 6);
    let mut insert = lock(&["a"], 7, 7);
    insert.keys[0].must_not_exist = true;
    assert!(matches!(error_of(store.lock(&insert)), KeyError::AlreadyExist { .. }));
    let if_exists = PessimisticLock { lock_only_if_exists: true, ..lock(&["a", "b"], 7, 7) };
    assert!(!store.lock(&if_exists).unwrap()[1].exists);
    assert_eq!(store.family(TXN_LOCK).len(), 1, "the absent key is not locked");
    let without_values = PessimisticLock { return_values: false, ..if_exists };
    assert!(matches!(error_of(store.lock(&without_values)), KeyError::Abort(_)));
    let existence = PessimisticLock { return_values: false, check_existence: true, ..lock(&["a"], 7, 7) };
    assert_eq!(
        store.lock(&existence).unwrap(),
        [LockedKey { value: None, exists: true, conflict_ts: TimeStamp::ZERO }]
    );
}

#[test]
fn a_lost_lock_is_noticed_at_prewrite_unless_nothing_happened_since() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite_held(&["a"], 5, 6)).expect("nothing was committed since it began");
    store.committed("b", "1", 7, 8);
    let lost = error_of(store.prewrite(&prewrite_held(&["b"], 5, 9)));
    assert!(matches!(lost, KeyError::PessimisticLockNotFound { .. }));
    store.lock(&lock(&["c"], 20, 20)).unwrap();
    let lost = error_of(store.prewrite(&prewrite_held(&["c"], 5, 9)));
    assert!(matches!(lost, KeyError::PessimisticLockNotFound { .. }), "another one holds it");
    let mut unlocked = prewrite_held(&["c"], 5, 9);
    unlocked.mutations[0].pessimistic = PessimisticAction::Skip;
    assert!(matches!(error_of(store.prewrite(&unlocked)), KeyError::Locked(lock) if lock.ttl_ms == 0));
}
