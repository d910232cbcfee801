use super::*;
use crate::keys::TXN_LOCK;
use crate::testing::{Executor, MapStore, Spawner, TestError, TestReplicated, prewrite, put, surroundings};
use crate::{KeyError, Leadership, NoYield};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::task::noop_waker;
use kontiki_env::rng::Rng;
use parking_lot::Mutex;

fn detach_to(spawner: Spawner) -> Surroundings {
    surroundings(Arc::new(move |future| spawner.spawn(future)), |_| Box::pin(std::future::pending()))
}

/// Runs a test with a scheduler on its own executor.
fn with_scheduler<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Scheduler<TestReplicated>) -> F) {
    let mut executor = Executor::new(Rng::new(1));
    let spawner = executor.spawner();
    let replicated = TestReplicated::new(spawner.clone(), Rng::new(3), 0);
    let ended = Arc::new(Mutex::new(false));
    let (test, end) = (test(Scheduler::new(replicated, detach_to(spawner.clone()))), ended.clone());
    spawner.spawn(async move {
        test.await;
        *end.lock() = true;
    });
    executor.run();
    assert!(*ended.lock(), "it ended");
}

#[test]
fn a_transaction_from_prewrite_to_read() {
    with_scheduler(|scheduler| async move {
        let key = Bytes::from("k");
        scheduler.prewrite(&(), prewrite(&[("k", put("1"))], "k", 5)).await.unwrap();
        let locked = scheduler.get(&(), &key, &ReadOptions::at(TimeStamp(9))).await.unwrap_err();
        assert!(matches!(locked, Failure::Keys(errors) if matches!(errors[0], KeyError::Locked(_))));
        let commit = Commit { keys: vec![key.clone()], start_ts: TimeStamp(5), commit_ts: TimeStamp(6) };
        assert_eq!(scheduler.commit(&(), commit).await.unwrap(), TimeStamp(6));
        let version = scheduler.get(&(), &key, &ReadOptions::at(TimeStamp(9))).await.unwrap().unwrap();
        assert_eq!((version.value.as_ref(), version.commit_ts), (&b"1"[..], TimeStamp(6)));
        let newest = scheduler.batch_get(&(), &[key], &ReadOptions::at(TimeStamp::MAX), &mut NoYield).await.unwrap();
        assert_eq!(newest.len(), 1);
        assert_eq!(scheduler.concurrency().max_ts(), TimeStamp(9), "raised by reads, but not to TimeStamp::MAX");
        assert!(scheduler.latches().is_empty());
    });
}

#[test]
fn a_key_beyond_the_limit_is_refused_before_it_is_proposed() {
    with_scheduler(|scheduler| async move {
        let mut command = prewrite(&[("k", put("1"))], "k", 5);
        command.mutations[0].key = vec![0; kontiki_engine::KEY_BYTES_MAX].into();
        let failed = scheduler.prewrite(&(), command).await.unwrap_err();
        assert!(matches!(&failed, Failure::Storage(error) if error.to_string().contains("65536")), "{failed}");
    });
}

#[test]
fn a_whole_region_is_resolved_in_batches() {
    with_scheduler(|scheduler| async move {
        let names: Vec<Bytes> = (0..RESOLVE_KEYS_MAX * 2 + 7).map(|i| Bytes::from(format!("k{i:05}"))).collect();
        for (start, names) in [(5, &names[..]), (6, &["other".into()][..])] {
            let mut command = prewrite(&[], "k00000", start);
            let op = || put("v");
            command.mutations.extend(names.iter().map(|key| crate::Mutation {
                key: key.clone(),
                op: op(),
                assertion: crate::Assertion::None,
                pessimistic: crate::PessimisticAction::Skip,
                expected_for_update_ts: None,
            }));
            scheduler.prewrite(&(), command).await.unwrap();
        }
        let command = ResolveLock { txns: [(TimeStamp(5), TimeStamp(9))].into(), keys: Vec::new() };
        scheduler.resolve_lock(&(), &Range::all(), command, &mut NoYield).await.unwrap();
        let store = scheduler.replicated().store.lock().clone();
        assert_eq!(store.family(TXN_LOCK).len(), 1, "the other transaction's");
        let wanted =
            Scan { range: Range::region(b"", &crate::lock_key(b"l")), limit: 10_000, key_only: true, reverse: false };
        let pairs = scheduler.scan(&(), &wanted, &ReadOptions::at(TimeStamp(9)), &mut NoYield).await.unwrap();
        assert_eq!(pairs.len(), names.len());
        let outside = ResolveLock { txns: [(TimeStamp(6), TimeStamp(9))].into(), keys: Vec::new() };
        let region = Range::region(b"", &crate::lock_key(b"o"));
        scheduler.resolve_lock(&(), &region, outside, &mut NoYield).await.unwrap();
        let wanted = ScanLock { range: Range::all(), max_version: TimeStamp(9), limit: 0 };
        assert_eq!(
            scheduler.scan_lock(&(), &wanted, &mut NoYield).await.unwrap().len(),
            1,
            "it lies outside the region"
        );
    });
}

/// Replicates when the test permits it.
struct Gated {
    store: Mutex<MapStore>,
    release: Mutex<Vec<oneshot::Receiver<()>>>,
}

impl Replicated for Gated {
    type Context = ();
    type Error = TestError;
    type View = MapStore;

    async fn view(&self, (): &()) -> Result<MapStore, TestError> {
        Ok(self.store.lock().clone())
    }

    fn leadership(&self, (): &()) -> Option<Leadership> {
        Some(Leadership { region: 1, term: 1, version: 1 })
    }

    async fn timestamp(&self) -> Result<TimeStamp, TestError> {
        Ok(TimeStamp(1))
    }

    async fn replicate(&self, (): &(), batch: WriteBatch) -> Result<(), TestError> {
        let gate = self.release.lock().pop();
        if let Some(gate) = gate {
            gate.await.map_err(|_| TestError::Refused)?;
        }
        self.store.lock().apply(&batch);
        Ok(())
    }
}

#[test]
fn a_caller_that_gives_up_leaves_the_latch_until_the_write_is_settled() {
    let (open, gate) = oneshot::channel();
    let held = Gated { store: Mutex::default(), release: Mutex::new(vec![gate]) };
    let mut executor = Executor::new(Rng::new(1));
    let scheduler = Scheduler::new(held, detach_to(executor.spawner()));
    let waker = noop_waker();
    let mut poll = Context::from_waker(&waker);
    let mut first = scheduler.prewrite(&(), prewrite(&[("k", put("1"))], "k", 5)).boxed();
    assert!(first.poll_unpin(&mut poll).is_pending());
    drop(first);
    assert_eq!(scheduler.latches().len(), 1, "the write may still happen");
    let mut second = scheduler.prewrite(&(), prewrite(&[("k", put("2"))], "k", 6)).boxed();
    assert!(second.poll_unpin(&mut poll).is_pending(), "it waits for the abandoned write");
    open.send(()).expect("the replication continues without its caller");
    executor.run();
    match second.poll_unpin(&mut poll) {
        Poll::Ready(Err(Failure::Keys(errors))) => {
            assert!(matches!(&errors[..], [KeyError::Locked(lock)] if lock.start_ts == TimeStamp(5)));
        }
        other => panic!("the second must meet the lock of the first, not {other:?}"),
    }
    drop(second);
    assert!(scheduler.latches().is_empty());
}

#[test]
fn a_failed_replication_opens_the_latch_and_says_so() {
    let (open, gate) = oneshot::channel();
    let held = Gated { store: Mutex::default(), release: Mutex::new(vec![gate]) };
    let scheduler = Scheduler::new(held, detach_to(Spawner::default()));
    drop(open);
    let failed = scheduler.prewrite(&(), prewrite(&[("k", put("1"))], "k", 5)).now_or_never().expect("settled");
    assert_eq!(failed.unwrap_err(), Failure::Replicated(TestError::Refused));
    assert!(scheduler.latches().is_empty());
}
