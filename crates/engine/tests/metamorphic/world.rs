//! A database, its model, and whatever is held open on both.

use crate::feed::Subscriber;
use crate::knobs;
use crate::model::{Entry, Model, Rows, entries};
use crate::transactions::OpenTransaction;
use bytes::Bytes;
use kontiki_engine::{Db, Direction, Error, Options, Range, ReadOptions, Result, Scan, Snapshot};
use kontiki_env::SimMachine;
use kontiki_env::clock::Clock;
use kontiki_env::fs::CrashMode;
use kontiki_env::rng::Rng;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

pub const DIR: &str = "/db";
/// More steps of background work than any script needs: beyond it two jobs wake each other for ever.
const IDLE_STEPS_MAX: u64 = 20_000;
/// Lines of the log that a failure prints.
const LOG_LINES_MAX: usize = 60;

/// A moment, held by a snapshot, and what was there.
pub struct Moment {
    pub snapshot: Snapshot,
    pub rows: Rc<Rows>,
    pub now_ms: u64,
}

/// The entries that an iterator has to give.
pub struct Expected {
    pub list: Vec<Entry>,
    pub at: usize,
    pub direction: Direction,
}

impl Expected {
    pub fn new(list: Vec<Entry>, direction: Direction) -> Expected {
        Expected { list, at: 0, direction }
    }

    pub fn next(&mut self) -> Option<Entry> {
        let next = self.list.get(self.at).cloned();
        self.at = (self.at + 1).min(self.list.len());
        next
    }

    pub fn seek(&mut self, target: &Bytes) {
        let reached = |(key, _): &Entry| match self.direction {
            Direction::Forward => key >= target,
            Direction::Backward => key <= target,
        };
        self.at = self.list.iter().position(reached).unwrap_or(self.list.len());
    }
}

pub struct World {
    pub machine: SimMachine,
    pub options: Options,
    /// Draws options; apart from the script, so that it stays the same under other options.
    option_rng: Rng,
    pub db: Option<Db>,
    pub model: Model,
    pub moments: Vec<Moment>,
    pub scans: Vec<(Scan, Expected)>,
    pub transactions: Vec<OpenTransaction>,
    pub subscribers: Vec<Subscriber>,
    /// By number: what each backup holds.
    pub backups: BTreeMap<u64, Rc<Rows>>,
    pub copies: u64,
    /// Whether the disk may be full.
    pub scarce: bool,
    /// Every answer, folded into a number each.
    pub history: Vec<u64>,
    /// Whether restarts keep them.
    pub keep_options: bool,
    restarts: u64,
    check_each_step: bool,
    log: Vec<String>,
}

impl World {
    /// With `maps`, log segments are mapped, as on the file systems that allow it.
    pub fn new(seed: u64, options_seed: u64, maps: bool) -> World {
        let machine = SimMachine::from_seed(seed);
        machine.fs.set_maps(maps);
        let mut option_rng = Rng::new(options_seed).child("options");
        let options = knobs::options(&mut option_rng);
        let mut world = World {
            machine,
            options,
            option_rng,
            db: None,
            model: Model::default(),
            moments: Vec::new(),
            scans: Vec::new(),
            transactions: Vec::new(),
            subscribers: Vec::new(),
            backups: BTreeMap::new(),
            copies: 0,
            scarce: false,
            history: Vec::new(),
            keep_options: false,
            restarts: 0,
            check_each_step: std::env::var("KONTIKI_METAMORPHIC_CHECK").is_ok(),
            log: Vec::new(),
        };
        world.open().expect("a healthy disk");
        world
    }

    pub fn db(&self) -> &Db {
        self.db.as_ref().expect("it is open between steps")
    }

    pub fn now_ms(&self) -> u64 {
        self.machine.clock.wall_ms()
    }

    pub fn let_pass(&self, duration: Duration) {
        let time = self.machine.clock.time();
        time.advance_to(time.now() + duration);
    }

    pub fn open(&mut self) -> Result<()> {
        assert!(self.db.is_none() && self.transactions.is_empty());
        self.restarts += 1;
        self.machine = self.machine.restarted(Rng::new(self.restarts));
        if !self.keep_options && self.option_rng.chance(1, 3) {
            self.options = knobs::options(&mut self.option_rng);
        }
        self.db = Some(Db::open_in(&self.machine.env(), Path::new(DIR), self.options.clone())?);
        Ok(())
    }

    /// Drops everything that is held, the database too.
    pub fn let_go(&mut self) -> Option<Db> {
        self.moments.clear();
        self.scans.clear();
        self.transactions.clear();
        self.subscribers.clear();
        self.db.take()
    }

    /// For the reader of a failure; the last lines are kept.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if self.log.len() >= 2 * LOG_LINES_MAX {
            self.log.drain(..LOG_LINES_MAX);
        }
        self.log.push(line());
    }

    pub fn last_lines(&self) -> String {
        let first = self.log.len().saturating_sub(LOG_LINES_MAX);
        self.log[first..].join("\n")
    }

    pub fn note(&mut self, bytes: &[u8]) {
        self.history.push(kontiki_env::codec::hash64(bytes));
    }

    pub fn note_entry(&mut self, entry: &Option<Entry>) {
        match entry {
            Some((key, value)) => {
                self.note(key);
                self.note(value);
            }
            None => self.note(b"the end"),
        }
    }

    pub fn run_jobs(&self, steps: u64) {
        (0..steps).take_while(|_| kontiki_env::tasks::Tasks::step(&self.machine.tasks)).for_each(drop);
    }

    pub fn run_until_idle(&self) {
        self.machine.tasks.run_until_idle(IDLE_STEPS_MAX);
    }

    /// Everything in the database, compared with the model.
    pub fn check_all(&self, what: &str) -> Result<()> {
        compare(self.db(), &self.model.rows, self.now_ms(), what)
    }

    /// For the search for the step that went wrong: everything, after each step.
    pub fn check_if_requested(&self, step: &str) {
        if self.check_each_step && !self.machine.fs.is_off() {
            self.check_all(step).expect("a healthy disk");
        }
    }

    pub fn close_and_reopen(&mut self) {
        let moments = std::mem::take(&mut self.moments);
        let db = self.let_go().expect("it is open");
        db.close().expect("a healthy disk");
        for moment in &moments {
            let found =
                moment.snapshot.scan(knobs::FAMILIES[0], Range::all(), Direction::Forward, ReadOptions::default());
            assert!(matches!(found.map(drop), Err(Error::Closed)), "a snapshot whose database is closed");
        }
        drop(moments);
        self.open().expect("a healthy disk");
        let sequence = self.db().snapshot().sequence();
        self.model.recover(sequence, true).unwrap_or_else(|what| panic!("close and open: {what}"));
    }

    pub fn kill_and_reopen(&mut self) {
        self.machine.fs.crash(CrashMode::Kill);
        self.let_go();
        self.open().expect("a killed process loses nothing");
        let sequence = self.db().snapshot().sequence();
        self.model.recover(sequence, true).unwrap_or_else(|what| panic!("killed: {what}"));
        self.check_all("killed").expect("a healthy disk");
    }

    /// Ends the process as `mode` says, opens the database again, and looks at what is left.
    pub fn restart(&mut self, mode: CrashMode) {
        self.say(|| format!("restart: {mode:?}"));
        self.machine.fs.power_off();
        self.let_go();
        self.machine.fs.crash(mode);
        self.machine.fs.clear_faults();
        self.open().unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        let sequence = self.db().snapshot().sequence();
        self.model.recover(sequence, false).unwrap_or_else(|what| panic!("{mode:?}: {what}"));
        self.settle_ingest();
        self.check_all("restarted").expect("a healthy disk");
    }

    /// Takes the power away, if it is not off yet, and checks what is left; the model continues from there.
    pub fn lose_power_and_reopen(&mut self, rng: &mut Rng) {
        let modes =
            [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced, CrashMode::Prefix, CrashMode::Pages, CrashMode::Random];
        let mode = *rng.pick(&modes).expect("there are some");
        self.say(|| format!("power loss: {mode:?}"));
        self.machine.fs.power_off();
        self.let_go();
        self.machine.fs.crash(mode);
        // A full disk is in the way of a restart, which has to write.
        self.scarce = false;
        self.machine.fs.set_quota(None);
        // Sometimes it goes off again while the database recovers.
        if rng.chance(1, 4) {
            self.machine.fs.power_off_after(rng.below(20));
            let again = self.open();
            let cut_off = self.machine.fs.is_off();
            assert!(cut_off || again.is_ok(), "{mode:?}: {again:?}");
            self.machine.fs.power_off();
            self.let_go();
            self.machine.fs.crash(*rng.pick(&modes).expect("there are some"));
        }
        self.machine.fs.clear_faults();
        self.open().unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        let sequence = self.db().snapshot().sequence();
        self.model.recover(sequence, false).unwrap_or_else(|what| panic!("{mode:?}: {what}"));
        self.settle_ingest();
        self.check_all("power loss").expect("a healthy disk");
    }

    /// After a step: continues from a power loss, and accepts what a full disk excuses.
    pub fn after(&mut self, outcome: Result<()>, rng: &mut Rng) {
        if self.machine.fs.is_off() {
            self.lose_power_and_reopen(rng);
            return;
        }
        if let Err(error) = outcome {
            assert!(self.scarce && matches!(error, Error::NoSpace { .. }), "{error}");
            self.say(|| format!("refused: {error}"));
        }
    }
}

pub fn all_of(mut scan: Scan) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    while let Some(entry) = scan.next().transpose()? {
        found.push(entry);
    }
    Ok(found)
}

/// Compares everything in a database with rows.
pub fn compare(db: &Db, rows: &Rows, now_ms: u64, what: &str) -> Result<()> {
    let snapshot = db.snapshot();
    for family in knobs::FAMILIES {
        let scan = snapshot.scan(family, Range::all(), Direction::Backward, ReadOptions::one_pass())?;
        let found = all_of(scan)?;
        let expected = entries(rows, family, &Range::all(), Direction::Backward, now_ms);
        let different = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        assert!(
            found == expected,
            "{what}: {family:?}: {} entries, not {}; {different:?}",
            found.len(),
            expected.len()
        );
    }
    Ok(())
}
