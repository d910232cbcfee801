//! The workloads: the operations of a client, and the checks of its answers.

use super::client::{self, Outcome};
use super::model::{self, Model, Permutation};
use super::plan::{Step, Workload};
use super::random::{Random, Zipf};
use crate::engines::{Read, Store};

/// The state that the steps of a group share.
pub struct Stage<'a> {
    pub store: &'a dyn Store,
    pub model: &'a Model,
    pub keys: u64,
    pub seconds: f64,
    pub sync: bool,
    pub seed: u64,
}

const SEEK_ENTRIES: u64 = 10;
const YCSB_SCAN_ENTRIES_MAX: u64 = 100;
/// Entries of one operation of a long scan: often enough to end in time.
const SCAN_ENTRIES: u64 = 10_000;
/// A sustained overwrite takes this many times as long as another step.
const SUSTAINED_FACTOR: f64 = 10.0;
/// The last digit of a key, by the remainder of its index by 8.
const LAST_DIGITS: &[u8; 8] = b"02468ace";
/// "Until there are no more".
const FOREVER_SECONDS: f64 = 1e6;

impl Stage<'_> {
    /// Runs a step.
    pub fn run(&self, step: Step) -> Outcome {
        use Workload::*;
        let threads = step.threads;
        let random = |thread: u64| Random::new(self.seed ^ (thread << 32) ^ ((step.workload as u64) << 48));
        let timed = self.seconds;
        match step.workload {
            Fillrandom if self.sync => client::run(threads, timed, |thread| self.overwrite(threads, thread, random)),
            Fillseq => self.fill(threads, |index| index),
            Fillrandom => {
                let permutation = Permutation::new(self.keys, self.seed);
                self.fill(threads, move |index| permutation.at(index))
            }
            Overwrite => client::run(threads, timed, |thread| self.overwrite(threads, thread, random)),
            Sustained => {
                let seconds = timed * SUSTAINED_FACTOR;
                client::run(threads, seconds, |thread| self.overwrite(threads, thread, random))
            }
            Readrandom => self.read(threads, random, |random| random.below(self.keys)),
            Readzipf => {
                let zipf = Zipf::new(self.keys);
                self.read(threads, random, move |random| zipf.index(random))
            }
            Readmissing => client::run(threads, timed, |thread| {
                let mut random = random(thread);
                move || {
                    let found = self.store.get(&model::missing_key(random.below(self.keys)), &mut |_| {});
                    assert!(!found, "found a key that was never written");
                    1
                }
            }),
            Seekrandom => client::run(threads, timed, |thread| {
                let mut random = random(thread);
                move || {
                    self.scan(random.below(self.keys), SEEK_ENTRIES);
                    1
                }
            }),
            Scan => client::run(threads, timed, |thread| {
                let mut start = thread * self.keys / threads;
                move || {
                    let entries = self.scan(start, SCAN_ENTRIES);
                    start = (start + entries) % self.keys;
                    entries
                }
            }),
            Snapread => self.read_snapshot(random(0)),
            Deleterandom => self.delete(threads),
            YcsbA => self.mix(threads, random, 50, Self::update),
            YcsbB => self.mix(threads, random, 5, Self::update),
            YcsbC => self.mix(threads, random, 0, Self::update),
            YcsbF => self.mix(threads, random, 50, Self::read_modify_write),
            YcsbD => self.read_latest(threads, random),
            YcsbE => self.scan_and_insert(threads, random),
        }
    }

    /// Reads a key and checks the answer; returns whether it exists.
    fn get(&self, index: u64) -> bool {
        let expected = self.model.before_read(index);
        let found = self.store.get(&model::key(index), &mut |value| self.model.check_found(expected, value));
        if !found {
            self.model.check_missing(expected);
        }
        found
    }

    fn put(&self, index: u64, value: &mut Vec<u8>) {
        self.model.begin_put(index, value);
        self.store.put(&model::key(index), value);
        self.model.end_write(index);
    }

    /// The next index at or below a given one which this thread writes: each key has one writer, so that its versions
    /// have an order.
    fn owned(&self, index: u64, threads: u64, thread: u64) -> u64 {
        let owned = index / threads * threads + thread;
        if owned < self.keys { owned } else { thread % self.keys }
    }

    fn fill(&self, threads: u64, order: impl Fn(u64) -> u64 + Sync) -> Outcome {
        let outcome = client::run(threads, FOREVER_SECONDS, |thread| {
            let (mut next, mut value) = (thread, Vec::new());
            let order = &order;
            move || {
                if next >= self.keys {
                    return 0;
                }
                self.put(order(next), &mut value);
                next += threads;
                1
            }
        });
        assert_eq!(outcome.operations, self.keys);
        self.model.set_used(self.keys);
        outcome
    }

    fn overwrite(&self, threads: u64, thread: u64, random: impl Fn(u64) -> Random) -> impl FnMut() -> u64 {
        let (mut random, mut value) = (random(thread), Vec::new());
        move || {
            let index = self.owned(random.below(self.keys), threads, thread);
            self.put(index, &mut value);
            1
        }
    }

    fn read(
        &self,
        threads: u64,
        random: impl Fn(u64) -> Random + Sync,
        pick: impl Fn(&mut Random) -> u64 + Sync,
    ) -> Outcome {
        client::run(threads, self.seconds, |thread| {
            let (mut random, pick) = (random(thread), &pick);
            move || {
                assert!(self.get(pick(&mut random)), "a key is missing");
                1
            }
        })
    }

    /// Scans up to `limit` entries from an index on, where all keys exist; returns their number. Of the first entry
    /// everything is checked, of the others key and version.
    fn scan(&self, start: u64, limit: u64) -> u64 {
        let mut seen = 0;
        self.store.scan(&model::key(start), &mut |key, value| {
            let expected = self.model.before_read(start + seen);
            if seen == 0 {
                assert!(key == model::key(start), "the scan begins at the wrong key");
                self.model.check_found(expected, value);
            } else {
                assert!(key[15] == LAST_DIGITS[((start + seen) % 8) as usize], "a scan shows a wrong key");
                self.model.check_version(expected, value);
            }
            seen += 1;
            seen < limit
        });
        assert!(seen == limit.min(self.keys - start), "a scan from {start} ended after {seen} entries");
        seen
    }

    fn read_snapshot(&self, mut random: Random) -> Outcome {
        let frozen = self.model.freeze();
        let mut outcome = None;
        self.store.with_snapshot(&mut |snapshot: &dyn Read| {
            let mut value = Vec::new();
            for _ in 0..self.keys / 4 {
                self.put(random.below(self.keys), &mut value);
            }
            let mut count = 0;
            let mut latencies = super::histogram::Histogram::new();
            let (start, mut last) = (std::time::Instant::now(), super::clock::ticks());
            let end = last + (self.seconds * super::clock::ticks_per_second()) as u64;
            while last < end {
                let index = random.below(self.keys);
                let version = frozen[index as usize];
                let check = &mut |value: &[u8]| self.model.check_frozen(index, version, value);
                assert!(snapshot.get(&model::key(index), check), "key {index} is missing in the snapshot");
                let now = super::clock::ticks();
                latencies.record(now - last);
                last = now;
                count += 1;
            }
            outcome = Some(Outcome { operations: count, elapsed: start.elapsed(), latencies });
        });
        outcome.expect("the snapshot was read")
    }

    fn delete(&self, threads: u64) -> Outcome {
        let permutation = Permutation::new(self.keys, !self.seed);
        client::run(threads, self.seconds, |thread| {
            let mut next = thread;
            move || {
                // The rest stays, as a reference for the space on disk.
                if next >= self.keys / 4 * 3 {
                    return 0;
                }
                let index = permutation.at(next);
                self.model.begin_delete(index);
                self.store.delete(&model::key(index));
                self.model.end_write(index);
                next += threads;
                1
            }
        })
    }

    fn update(&self, index: u64, value: &mut Vec<u8>) {
        self.put(index, value);
    }

    fn read_modify_write(&self, index: u64, value: &mut Vec<u8>) {
        assert!(self.get(index), "a key is missing");
        self.put(index, value);
    }

    /// Reads and, in `percent` of the operations, writes; keys by YCSB's zipfian distribution.
    fn mix(
        &self,
        threads: u64,
        random: impl Fn(u64) -> Random + Sync,
        percent: u64,
        write: fn(&Self, u64, &mut Vec<u8>),
    ) -> Outcome {
        let zipf = Zipf::new(self.keys);
        client::run(threads, self.seconds, |thread| {
            let (mut random, mut value, zipf) = (random(thread), Vec::new(), &zipf);
            move || {
                let index = zipf.index(&mut random);
                if random.below(100) < percent {
                    write(self, self.owned(index, threads, thread), &mut value);
                } else {
                    assert!(self.get(index), "a key is missing");
                }
                1
            }
        })
    }

    /// Inserts the next new key; false once the capacity is used up.
    fn insert(&self, value: &mut Vec<u8>) {
        let index = self.model.new_index().expect("capacity for new keys: use fewer seconds or more keys");
        self.put(index, value);
    }

    fn read_latest(&self, threads: u64, random: impl Fn(u64) -> Random + Sync) -> Outcome {
        let zipf = Zipf::new(self.keys);
        client::run(threads, self.seconds, |thread| {
            let (mut random, mut value, zipf) = (random(thread), Vec::new(), &zipf);
            move || {
                if random.below(100) < 5 {
                    self.insert(&mut value);
                } else {
                    // One that is just being inserted may be missing: the model knows.
                    self.get(self.model.used() - 1 - zipf.rank(&mut random));
                }
                1
            }
        })
    }

    fn scan_and_insert(&self, threads: u64, random: impl Fn(u64) -> Random + Sync) -> Outcome {
        let zipf = Zipf::new(self.keys);
        client::run(threads, self.seconds, |thread| {
            let (mut random, mut value, zipf) = (random(thread), Vec::new(), &zipf);
            move || {
                if random.below(100) < 5 {
                    self.insert(&mut value);
                } else {
                    let limit = 1 + random.below(YCSB_SCAN_ENTRIES_MAX);
                    // Beyond the keys of the load there may be gaps for a moment.
                    let start = zipf.index(&mut random).min(self.keys - limit.min(self.keys));
                    self.scan(start, limit.min(self.keys - start));
                }
                1
            }
        })
    }
}

/// Compares everything in the store with the model, while there are no writes.
pub fn verify(store: &dyn Store, model: &Model) {
    let (mut entries, mut last) = (0, None);
    store.scan(&model::key(0), &mut |key, value| {
        let index = model::index_of(key);
        assert!(last < Some(index), "a scan is out of order");
        model.check_found(model.before_read(index), value);
        (entries, last) = (entries + 1, Some(index));
        true
    });
    assert_eq!(entries, model.live(), "the store does not have the expected keys");
}
