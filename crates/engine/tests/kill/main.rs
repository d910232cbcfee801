//! Processes that are killed, on the real file system with real threads: nothing acknowledged is lost, no commit is
//! there in part, and the directory is sound.
//!
//! A child process runs writers, transfers and maintenance (`child.rs`) until the parent kills it, at a moment of its
//! choice: while it works, while it opens, while it is stopped. What writers do is determined by a seed (`script.rs`),
//! and the child leaves two numbers for each thread in a file (`progress.rs`); so the parent knows exactly what must be
//! there, but for the one step of each thread that was under way, which is there as a whole or not at all.
//!
//! The suite kills 40 times. For many more, and to repeat a failure: docs/internals/testing.md. The simulated disk
//! takes the power away, too, and at chosen moments; what only this test has is the real one: its page cache, its
//! mappings, its threads.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes on the real file system")]

mod child;
mod progress;
mod script;
mod volume;

use child::{ACCOUNTS, BALANCE, Orders, TRANSFERRERS, account, bank_of, counter, number_in};
use kontiki_engine::{Db, Direction, Durability, Family, Range, View, WriteBatch, inspect};
use kontiki_env::Env;
use kontiki_env::rng::Rng;
use progress::Seen;
use script::{BANK, LARGE, Rows, Script, WRITERS, id_of, key};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Times that the suite kills.
const SUITE_CYCLES: u64 = 40;
const VOLUME_CYCLES: u64 = 8;
const DESCRIPTORS_CYCLES: u64 = 8;
/// Enough to open the database and little more.
const DESCRIPTORS: u64 = 64;
/// Whatever is waited for comes within this time on any machine.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// Between two looks at the child's progress.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// How orders reach the child.
const ORDERS: &str = "KONTIKI_KILL_ORDERS";

/// The wall clock.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// Waits until the condition holds.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {WAIT_MAX:?} in vain: {what}");
        std::thread::park_timeout(POLL_INTERVAL);
    }
}

/// A database that is killed again and again, and what it must hold.
struct Story {
    place: PathBuf,
    rows: Vec<Rows>,
    counters: Vec<u64>,
    steps: u64,
    unanswered_kept: u64,
    /// If the child is to have few, and to run out of them.
    descriptors_max: Option<u64>,
}

impl Story {
    fn begin(place: &Path) -> Story {
        std::fs::create_dir_all(place).expect("created");
        let db = Db::open(place.join("db"), script::options(0)).expect("a new database");
        let mut batch = WriteBatch::new();
        (0..ACCOUNTS).for_each(|number| batch.put(BANK, account(number), BALANCE.to_le_bytes()));
        db.write(batch, Durability::Sync).expect("written");
        db.close().expect("closed");
        let rows = vec![Rows::default(); WRITERS as usize];
        let counters = vec![0; TRANSFERRERS as usize];
        Story { place: place.to_path_buf(), rows, counters, steps: 0, unanswered_kept: 0, descriptors_max: None }
    }

    fn start(&self, seed: u64) -> (Running, Orders) {
        progress::reset(&self.place);
        let hogs = self.descriptors_max.is_some();
        let orders = Orders { place: self.place.clone(), seed, began_ms: now_ms(), hogs };
        let errors = std::fs::File::create(self.place.join("errors")).expect("created");
        // A process may lower its own limit, and the program that takes its place keeps it.
        let limit = self.descriptors_max.map_or(String::new(), |max| format!("ulimit -Sn {max}; "));
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("{limit}exec \"$0\" a_child_of_these_tests --exact --nocapture"))
            .arg(std::env::current_exe().expect("this program"))
            .env(ORDERS, format!("{}\n{seed}\n{}\n{}", orders.place.display(), orders.began_ms, u64::from(hogs)))
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("started");
        (Running { child, place: self.place.clone() }, orders)
    }

    /// One life of the process: `live` waits for the moment to kill it and may disturb it; what it returns is dropped
    /// after the kill.
    fn cycle<T>(&mut self, seed: u64, live: impl FnOnce(&mut Running, &mut Rng) -> T) {
        let mut rng = Rng::new(seed).child("kill");
        let (mut running, orders) = self.start(seed);
        let held = live(&mut running, &mut rng);
        running.kill();
        drop(held);
        let seen = Seen::read(&self.place);
        self.steps += seen.steps();
        self.look(&orders, &seen, &mut rng);
    }

    /// Opens what the killed process has left, and compares.
    fn look(&mut self, orders: &Orders, seen: &Seen, rng: &mut Rng) {
        let dir = self.place.join("db");
        let options = script::options(orders.seed + rng.below(2));
        let opened_ms = now_ms();
        if rng.chance(1, 4) {
            let db = Db::open_read_only(&dir, options.clone()).expect("readable without recovery");
            self.copied().compare(&db.snapshot(), orders, seen, opened_ms);
        }
        if rng.chance(1, 4) {
            let report = inspect::check(&Env::real(), &dir).expect("it can be checked");
            assert!(report.is_sound(), "{:?}", report.problems);
        }
        let db = Db::open(&dir, options).expect("it opens");
        self.compare(&db.snapshot(), orders, seen, opened_ms);
        match rng.below(3) {
            0 => db.close().expect("closed"),
            1 => db.flush().expect("flushed"),
            _ => drop(db),
        }
    }

    fn copied(&self) -> Story {
        Story { place: self.place.clone(), rows: self.rows.clone(), counters: self.counters.clone(), ..*self }
    }

    fn compare(&mut self, view: &dyn View, orders: &Orders, seen: &Seen, opened_ms: u64) {
        for writer in 0..WRITERS {
            let (answered, begun) = (seen.answered(writer), seen.begun(writer));
            assert!(begun == answered || begun == answered + 1, "a writer does one thing at a time");
            let mut script = Script::new(orders.seed, writer, orders.began_ms);
            let mut rows = self.rows[writer as usize].clone();
            script.by_ref().take(answered as usize).for_each(|step| rows.apply(&step));
            let unanswered = script.next().filter(|_| begun > answered);
            let found = differences(view, writer, &rows, opened_ms);
            if let (Err(without), Some(step)) = (&found, &unanswered) {
                rows.apply(step);
                self.unanswered_kept += 1;
                if let Err(with) = differences(view, writer, &rows, opened_ms) {
                    panic!("writer {writer}, step {begun}, {step:?}: without it: {without}; with it: {with}");
                }
            } else if let Err(what) = found {
                panic!("writer {writer}, after {answered} steps: {what}");
            }
            self.rows[writer as usize] = rows;
        }
        assert_eq!(
            bank_of(view).expect("readable"),
            (ACCOUNTS * BALANCE, ACCOUNTS),
            "sum over accounts, and their number"
        );
        for (thread, counter_before) in (0..).zip(&mut self.counters) {
            let made = view.get(BANK, &counter(thread)).expect("readable").map_or(0, |value| number_in(&value));
            let (answered, begun) = (seen.answered(WRITERS + thread), seen.begun(WRITERS + thread));
            let least = answered.max(*counter_before);
            assert!((least..=begun.max(least)).contains(&made), "transfers of {thread}: {answered}, {made}, {begun}");
            *counter_before = made;
        }
    }
}

/// Compares a writer's keys in a database that was opened at `opened_ms` or later.
fn differences(view: &dyn View, writer: u64, rows: &Rows, opened_ms: u64) -> Result<(), String> {
    let mut expected = rows.0.clone();
    for family in [Family::DEFAULT, LARGE] {
        let range = Range { start: Some(key(writer, 0).into()), end: Some(key(writer + 1, 0).into()) };
        let mut entries = view.entries(family, range, Direction::Forward).map_err(|error| error.to_string())?;
        while let Some((key, value)) = entries.next().transpose().map_err(|error| error.to_string())? {
            let name = format!("{family:?} {key:?}");
            let id = id_of(&value).ok_or_else(|| format!("{name}: a value that was never written"))?;
            let number = std::str::from_utf8(&key).ok().and_then(|key| key.split('/').nth(1)?.parse::<u64>().ok());
            let row = number.and_then(|number| expected.remove(&(family, number)));
            let row = row.ok_or_else(|| format!("{name}: value {id:x} where nothing should be"))?;
            if (row.id, row.length.max(8)) != (id, value.len()) {
                return Err(format!("{name}: value {id:x} where {:x} should be", row.id));
            }
            if row.expires_at_ms.is_some_and(|at| at <= opened_ms) {
                return Err(format!("{name}: it has expired"));
            }
        }
    }
    // What is not there has expired by now, or is lost.
    let after_ms = now_ms();
    let lost = expected.iter().find(|(_, row)| row.expires_at_ms.is_none_or(|at| at > after_ms));
    lost.map_or(Ok(()), |((family, number), row)| Err(format!("{family:?} key {number}: {row:?} is lost")))
}

struct Running {
    child: Child,
    place: PathBuf,
}

impl Running {
    fn seen(&self) -> Seen {
        Seen::read(&self.place)
    }

    /// Waits for a condition of its progress. It must not end meanwhile.
    fn wait(&mut self, what: &str, condition: impl Fn(&Seen) -> bool) {
        wait_for(what, || {
            let ended = self.child.try_wait().expect("its state can be read");
            assert!(ended.is_none(), "it ended by itself: {ended:?}: {}", self.errors());
            condition(&self.seen())
        });
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("there is a kill");
        assert!(sent.success(), "{name}: {}", self.errors());
    }

    fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        let status = self.child.wait().expect("it can be waited for");
        assert_eq!(status.signal(), Some(9), "it ended by itself: {status}: {}", self.errors());
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.place.join("errors")).unwrap_or_default()
    }
}

/// Lets it work for a while; or kills it soon after the start, while it recovers; or stops it meanwhile.
fn live(running: &mut Running, rng: &mut Rng) {
    if rng.chance(1, 6) {
        (0..rng.below(20)).for_each(|_| std::thread::park_timeout(POLL_INTERVAL));
        return;
    }
    let steps = rng.below(1500);
    running.wait("it works", |seen| seen.is_open() && seen.steps() >= steps);
    if rng.chance(1, 4) {
        running.signal("-STOP");
        let stopped_at = running.seen();
        if rng.chance(1, 2) {
            running.signal("-CONT");
            running.wait("it continues", |seen| seen.steps() > stopped_at.steps());
        }
    }
}

impl Drop for Running {
    /// A failed test leaves no process behind.
    fn drop(&mut self) {
        let _ = self.child.kill(); // it was killed, as a rule
        let _ = self.child.wait();
    }
}

fn scratch(name: &str) -> PathBuf {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&scratch); // of another process with this number
    scratch
}

fn kill_again_and_again(seeds: std::ops::Range<u64>) {
    let scratch = scratch(&format!("kill-{}", seeds.start));
    let mut story = Story::begin(&scratch);
    let began = Instant::now();
    for seed in seeds {
        // Kept if it fails: the directory is named in the output.
        println!("seed {seed}, in {}, {:?}: {} steps answered", scratch.display(), began.elapsed(), story.steps);
        story.cycle(seed, live);
    }
    println!("{} steps answered, {} kept without an answer, {:?}", story.steps, story.unanswered_kept, began.elapsed());
    assert!(story.steps > 1000, "the children have done too little: {}", story.steps);
    std::fs::remove_dir_all(&scratch).expect("removed");
}

fn seeds_from_environment() -> std::ops::Range<u64> {
    let text = std::env::var("KONTIKI_KILL_SEEDS").unwrap_or_else(|_| "1000..3000".to_string());
    let (first, end) = text.split_once("..").expect("KONTIKI_KILL_SEEDS is like 1000..3000");
    first.parse().expect("a number")..end.parse().expect("a number")
}

/// Not a test: what the others start as a separate process.
#[test]
fn a_child_of_these_tests() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let mut lines = orders.lines();
    let mut next = || lines.next().expect("four lines");
    let (place, seed, began_ms, hogs) = (next(), next(), next(), next() == "1");
    let number = |text: &str| text.parse().expect("a number");
    child::run(&Orders { place: place.into(), seed: number(seed), began_ms: number(began_ms), hogs });
}

#[test]
fn killed_processes_lose_nothing_acknowledged() {
    kill_again_and_again(0..SUITE_CYCLES);
}

#[test]
#[ignore = "kills 2,000 times, or as often as KONTIKI_KILL_SEEDS says"]
fn thousands_of_killed_processes_lose_nothing_acknowledged() {
    kill_again_and_again(seeds_from_environment());
}

/// As above, on a separate volume that fills up while the process works, and is emptied again before the next
/// open.
#[test]
fn killed_processes_on_a_full_volume_lose_nothing_acknowledged() {
    let volume = match volume::Volume::mount(&scratch("kill-volume")) {
        Ok(volume) => volume,
        Err(why) => return println!("skipped: no volume can be mounted here: {why}"),
    };
    let mut story = Story::begin(&volume.root().join("place"));
    for seed in 0..VOLUME_CYCLES {
        story.cycle(seed, |running, rng| {
            let steps = rng.below(300);
            running.wait("it works", |seen| seen.is_open() && seen.steps() >= steps);
            let filler = volume.fill();
            running.wait("the disk is full", |seen| seen.refusals() > 0);
            if rng.chance(1, 2) {
                return Some(filler);
            }
            drop(filler);
            let stood_at = running.seen().steps();
            running.wait("writes resume", |seen| seen.steps() > stood_at + 50);
            None
        });
    }
    assert!(story.steps > 500, "the children have done too little: {}", story.steps);
}

/// As above, in a process with few descriptors, of which another thread takes all that are left, again and again.
#[test]
fn killed_processes_without_descriptors_lose_nothing_acknowledged() {
    let scratch = scratch("kill-descriptors");
    let mut story = Story::begin(&scratch);
    story.descriptors_max = Some(DESCRIPTORS);
    for seed in 0..DESCRIPTORS_CYCLES {
        story.cycle(seed, |running, rng| {
            let steps = rng.below(1000);
            running.wait("it works", |seen| seen.is_open() && seen.steps() >= steps);
            running.wait("descriptors run out", |seen| seen.refusals() > 0);
            let stood_at = running.seen().steps();
            running.wait("writes resume", |seen| seen.steps() > stood_at + 50);
        });
    }
    assert!(story.steps > 500, "the children have done too little: {}", story.steps);
    std::fs::remove_dir_all(&scratch).expect("removed");
}
