//! The throttle on simulated time: a writer without end, and a flush that is slower than it.

use super::*;
use kontiki_env::clock::{Clock, SimClock, VirtualTime};
use std::cell::Cell;

const MEMTABLE: u64 = 1 << 20;
const WRITE: u64 = 1 << 10;

fn options() -> Options {
    Options { memtable_bytes: MEMTABLE, memtables_max: 4, value_segment_bytes: 1 << 20, ..Options::default() }
}

/// Flushes a memtable at a time; a byte takes so many nanoseconds.
struct World {
    time: VirtualTime,
    clock: SimClock,
    throttle: Throttle,
    flush_ns: Cell<u64>,
    memory: Cell<u64>,
    flushed: Cell<u64>,
    flush_ends: Cell<Option<Duration>>,
    longest_delay: Cell<Duration>,
    most_memory: Cell<u64>,
}

impl DebtSource for World {
    fn memory(&self) -> (u64, u64) {
        (self.memory.get(), 0)
    }

    fn drained_bytes(&self) -> i64 {
        self.flushed.get() as i64
    }
}

impl World {
    fn new(flush_bytes_per_second: u64) -> World {
        let time = VirtualTime::default();
        World {
            clock: SimClock::new(time.clone()),
            time,
            throttle: Throttle::new(&options()),
            flush_ns: Cell::new(1_000_000_000 / flush_bytes_per_second),
            memory: Cell::default(),
            flushed: Cell::default(),
            flush_ends: Cell::default(),
            longest_delay: Cell::default(),
            most_memory: Cell::default(),
        }
    }

    fn pass(&self, duration: Duration) {
        self.time.advance_to(self.time.now() + duration);
        let now = self.clock.monotonic();
        if self.flush_ends.get().is_some_and(|end| end <= now) {
            self.memory.set(self.memory.get() - MEMTABLE);
            self.flushed.set(self.flushed.get() + MEMTABLE);
            self.flush_ends.set(None);
        }
        if self.flush_ends.get().is_none() && self.memory.get() >= MEMTABLE {
            self.flush_ends.set(Some(now + Duration::from_nanos(MEMTABLE * self.flush_ns.get())));
        }
    }

    fn write(&self, bytes: u64) {
        let began = self.clock.monotonic();
        let mut wait = self.throttle.enter(bytes, began, self);
        while let Some(Wait { length, stopped, .. }) = wait {
            assert!(!stopped, "memory is not what the throttle stops for");
            self.pass(length);
            wait = self.throttle.enter(0, self.clock.monotonic(), self);
        }
        self.longest_delay.set(self.longest_delay.get().max(self.clock.monotonic() - began));
        self.memory.set(self.memory.get() + bytes);
        self.most_memory.set(self.most_memory.get().max(self.memory.get()));
        self.pass(Duration::from_micros(2));
    }

    /// Writes for so long; returns the bytes a second.
    fn write_for(&self, duration: Duration) -> f64 {
        let (began, mut bytes) = (self.clock.monotonic(), 0);
        while self.clock.monotonic() - began < duration {
            self.write(WRITE);
            bytes += WRITE;
        }
        bytes as f64 / (self.clock.monotonic() - began).as_secs_f64()
    }
}

#[test]
fn a_writer_without_end_settles_at_the_speed_of_the_flush_and_never_meets_the_bound() {
    for flush_bytes_per_second in [2 << 20, 20 << 20, 100 << 20] {
        let world = World::new(flush_bytes_per_second);
        world.write_for(Duration::from_secs(5));
        let rate = world.write_for(Duration::from_secs(20)) / flush_bytes_per_second as f64;
        assert!((0.95..1.05).contains(&rate), "{rate} of the flush's speed");
        let most = world.most_memory.get();
        assert!(most < 4 * MEMTABLE, "{most} bytes: the hard bound was met");
        // The longest is at the beginning, when the drain is not known yet.
        let longest = world.longest_delay.get();
        assert!(longest < Duration::from_millis(50), "a write took {longest:?}");
    }
}

#[test]
fn the_rate_follows_when_the_drain_changes() {
    let world = World::new(50 << 20);
    world.write_for(Duration::from_secs(5));
    for (flush_bytes_per_second, seconds) in [(5 << 20, 20), (50 << 20, 5), (10 << 20, 20)] {
        world.flush_ns.set(1_000_000_000 / flush_bytes_per_second);
        world.write_for(Duration::from_secs(seconds));
        let rate = world.write_for(Duration::from_secs(20)) / flush_bytes_per_second as f64;
        assert!((0.9..1.1).contains(&rate), "{rate} of the flush's speed, {flush_bytes_per_second}");
    }
    assert!(world.most_memory.get() < 4 * MEMTABLE, "the hard bound was met");
}

#[test]
fn a_writer_that_brings_no_more_than_is_flushed_is_never_delayed() {
    let world = World::new(20 << 20);
    for _ in 0..200_000 {
        world.write(WRITE);
        world.pass(Duration::from_micros(70));
    }
    assert_eq!(world.longest_delay.get(), Duration::ZERO);
}

#[test]
fn a_large_write_continues_when_the_pressure_ends() {
    let world = World::new(10 << 20);
    world.memory.set(3 * MEMTABLE);
    world.write(64 << 20);
    assert!(world.longest_delay.get() < Duration::from_secs(1), "{:?}", world.longest_delay.get());
}

#[test]
fn debts_of_compaction_and_values_stop_writers_at_their_hard_bounds_and_only_there() {
    let world = World::new(10 << 20);
    let enter = || world.throttle.enter(0, world.clock.monotonic(), &world);
    let throttle = &world.throttle;
    throttle.note_compaction_debt((128 << 30) - (1 << 20));
    assert!(throttle.is_pressed() && enter().is_none_or(|wait| !wait.stopped), "slowed");
    throttle.note_compaction_debt(128 << 30);
    assert!(matches!(enter(), Some(Wait { stopped: true, reason: DelayReason::CompactionDebt, .. })));
    throttle.note_compaction_debt(0);
    assert!(!throttle.is_pressed() && enter().is_none());
    // 20 % of 100 MiB, and 8 segments of 1 MiB.
    throttle.note_value_debt(27 << 20, 100 << 20);
    assert!(throttle.is_pressed() && enter().is_none_or(|wait| !wait.stopped), "slowed");
    throttle.note_value_debt(28 << 20, 100 << 20);
    assert!(matches!(enter(), Some(Wait { stopped: true, reason: DelayReason::ValueGarbage, .. })));
    let stats = throttle.stats(0, 0);
    assert_eq!((stats.pressure_percent, stats.reason), (100, Some(DelayReason::ValueGarbage)));
    throttle.note_value_debt(4 << 20, 100 << 20);
    assert!(!throttle.is_pressed());
}
