use super::*;

const NOW_MS: u64 = 1_800_000_000_000;

fn ts(ms: u64) -> u64 {
    (NOW_MS - 1_000_000 + ms) << LOGICAL_BITS
}

/// A leader whose writes all succeed at once.
struct Bench(Gc);

impl Bench {
    fn new() -> Bench {
        Bench(Gc::new(GcRecord::default()))
    }

    fn settled(&mut self, answer: Option<Answer>) -> Answer {
        match answer {
            Some(answer) => answer,
            None => {
                let record = self.0.plan().expect("something has to be written");
                assert!(record.safe_point <= record.txn_safe_point);
                assert!(record.barriers.values().all(|barrier| barrier.ts >= record.txn_safe_point));
                let mut answers = self.0.written(true);
                assert_eq!(answers.len(), 1);
                answers.remove(0).1
            }
        }
    }

    fn update(&mut self, target: u64) -> u64 {
        let answer = self.0.update(CallId(1), target, NOW_MS);
        match self.settled(answer).unwrap() {
            Outcome::SafePoint(point) => point.safe_point,
            other => panic!("{other:?}"),
        }
    }

    fn advance_txn(&mut self, target: u64, now_ms: u64) -> Result<SafePointMoved, Refusal> {
        let answer = self.0.advance_txn(CallId(1), target, now_ms);
        self.settled(answer).map(|outcome| match outcome {
            Outcome::SafePointMoved(moved) => moved,
            other => panic!("{other:?}"),
        })
    }

    fn advance(&mut self, target: u64) -> Result<(), Refusal> {
        let answer = self.0.advance(CallId(1), target);
        self.settled(answer).map(|_| ())
    }

    fn service(&mut self, service: &str, ttl_seconds: i64, safe_point: u64) -> Result<ServiceSafePoint, Refusal> {
        let ask = UpdateServiceSafePoint { service: service.into(), ttl_seconds, safe_point };
        let answer = self.0.update_service(CallId(1), ask, NOW_MS);
        self.settled(answer).map(|outcome| match outcome {
            Outcome::ServiceSafePoint(lowest) => lowest,
            other => panic!("{other:?}"),
        })
    }

    fn barrier(&mut self, name: &str, ts: u64, ttl_seconds: i64) -> Result<(), Refusal> {
        let answer = self.0.set_barrier(CallId(1), GcBarrier { name: name.into(), ts, ttl_seconds }, NOW_MS);
        self.settled(answer).map(|_| ())
    }
}

#[test]
fn no_safe_point_passes_a_barrier() {
    let mut bench = Bench::new();
    bench.barrier("backup", ts(50), 60).unwrap();
    let moved = bench.advance_txn(ts(80), NOW_MS).unwrap();
    assert_eq!((moved.old, moved.new), (0, ts(50)));
    assert!(moved.blocker.contains("backup"), "{moved:?}");
    assert_eq!(bench.update(ts(90)), ts(50));
    assert_eq!(bench.advance(ts(51)).unwrap_err().code(), RefusalCode::Invalid);
    let answer = bench.0.delete_barrier(CallId(1), "backup", NOW_MS);
    bench.settled(answer).unwrap();
    assert_eq!(bench.advance_txn(ts(80), NOW_MS).unwrap().new, ts(80));
    assert_eq!(bench.0.points(NOW_MS).gc_safe_point, ts(50), "it moves by itself only");
    bench.advance(ts(70)).unwrap();
    assert_eq!(bench.update(ts(60)), ts(70), "it never goes back");
}

#[test]
fn a_barrier_below_the_safe_point_is_refused_and_one_that_has_expired_holds_nothing() {
    let mut bench = Bench::new();
    bench.advance_txn(ts(10), NOW_MS).unwrap();
    assert_eq!(bench.barrier("late", ts(9), 60).unwrap_err().code(), RefusalCode::Invalid);
    assert_eq!(bench.barrier("none", ts(20), 0).unwrap_err().code(), RefusalCode::Invalid);
    bench.barrier("short", ts(20), 60).unwrap();
    assert_eq!(bench.advance_txn(ts(30), NOW_MS + 59_999).unwrap().new, ts(20));
    assert_eq!(bench.0.points(NOW_MS + 60_000).barriers, []);
    assert_eq!(bench.advance_txn(ts(30), NOW_MS + 60_000).unwrap().new, ts(30));
}

#[test]
fn points_never_go_back_and_are_never_in_the_future() {
    let mut bench = Bench::new();
    bench.advance_txn(ts(10), NOW_MS).unwrap();
    assert_eq!(bench.advance_txn(ts(9), NOW_MS).unwrap_err().code(), RefusalCode::Invalid);
    bench.advance(ts(10)).unwrap();
    assert_eq!(bench.advance(ts(9)).unwrap_err().code(), RefusalCode::Invalid);
    let future = (NOW_MS + 1) << LOGICAL_BITS;
    assert_eq!(bench.advance_txn(future, NOW_MS).unwrap_err().code(), RefusalCode::Invalid);
    assert_eq!(bench.0.update(CallId(1), future, NOW_MS).unwrap().unwrap_err().code(), RefusalCode::Invalid);
    assert_eq!(bench.service(GC_WORKER, i64::MAX, future).unwrap_err().code(), RefusalCode::Invalid);
}

#[test]
fn service_safe_points_hold_back_and_the_gc_worker_moves() {
    let mut bench = Bench::new();
    let first = bench.service("cdc", 60, ts(40)).unwrap();
    assert_eq!((first.service.as_str(), first.min_safe_point), (GC_WORKER, 0));
    let worker = bench.service(GC_WORKER, i64::MAX, ts(90)).unwrap();
    assert_eq!((worker.service.as_str(), worker.ttl_seconds, worker.min_safe_point), ("cdc", 60, ts(40)));
    let late = bench.service("late", 60, ts(39)).unwrap();
    assert_eq!(late.min_safe_point, ts(40), "above what was asked for: it is not protected");
    assert_eq!(bench.0.points(NOW_MS).barriers.len(), 1);
    bench.service("cdc", 0, 0).unwrap();
    let worker = bench.service(GC_WORKER, i64::MAX, ts(90)).unwrap();
    assert_eq!((worker.service.as_str(), worker.min_safe_point), (GC_WORKER, ts(90)));
    assert_eq!(bench.service(GC_WORKER, 60, ts(91)).unwrap_err().code(), RefusalCode::Invalid, "it never expires");
}

#[test]
fn barriers_are_bounded() {
    let mut bench = Bench::new();
    for number in 0..GC_BARRIERS_MAX {
        bench.barrier(&format!("b{number}"), ts(1), 60).unwrap();
    }
    let refusal = bench.barrier("one more", ts(1), 60).unwrap_err();
    assert_eq!(refusal.code(), RefusalCode::Busy);
    assert!(refusal.message.contains("256"), "{refusal}");
    bench.barrier("b7", ts(2), 60).expect("one that is there is moved");
    assert_eq!(bench.barrier(&"x".repeat(129), ts(1), 60).unwrap_err().code(), RefusalCode::Invalid);
    assert_eq!(bench.barrier(GC_WORKER, ts(1), 60).unwrap_err().code(), RefusalCode::Invalid);
}

#[test]
fn nothing_is_answered_before_it_is_durable() {
    let mut gc = Gc::new(GcRecord::default());
    assert!(gc.update(CallId(1), ts(5), NOW_MS).is_none());
    assert_eq!(gc.safe_point(), 0);
    assert!(gc.plan().is_some());
    assert!(gc.update(CallId(2), ts(5), NOW_MS).is_none(), "the same, which is not durable yet");
    assert_eq!(gc.written(false), [], "an unknown outcome answers nothing");
    assert_eq!(gc.plan().unwrap().safe_point, ts(5), "it is written again");
    assert_eq!(gc.written(true).len(), 2);
    assert_eq!(gc.safe_point(), ts(5));
}
