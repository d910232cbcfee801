//! Transactions: several are open at once, and each answer, the refusals of commits included, follows from the model.

use crate::draw;
use crate::model::{Cell, Rows, Write, entries, get, only};
use crate::world::{Expected, World};
use bytes::Bytes;
use kontiki_engine::{
    Direction, Durability, Entries, Error, Family, Isolation, Range, ReadOptions, Result, Savepoint, SequenceNumber,
    Transaction, TransactionEntries, TransactionOptions,
};
use kontiki_env::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::mpsc;

/// Open at once at most.
const OPEN_MAX: usize = 4;

type Key = (Family, Bytes);

/// What a transaction has written: the last write of each key, and deleted ranges, before the keys in them.
#[derive(Clone, Default)]
struct Pending {
    keys: BTreeMap<Key, Option<Cell>>,
    deleted: Vec<(Family, Range)>,
}

impl Pending {
    fn covers(&self, family: Family, key: &Bytes) -> bool {
        self.deleted.iter().any(|(of, range)| *of == family && range.contains(key))
    }

    fn has_written(&self, family: Family, key: &Bytes) -> bool {
        self.keys.contains_key(&(family, key.clone())) || self.covers(family, key)
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.deleted.is_empty()
    }

    fn writes(&self) -> Vec<Write> {
        let ranges = self.deleted.iter().map(|(family, range)| {
            let (start, end) = (range.start.clone().unwrap_or_default(), range.end.clone().unwrap_or_default());
            Write::DeleteRange { family: *family, start, end }
        });
        let keys = self.keys.iter().map(|((family, key), cell)| match cell {
            Some(cell) => Write::Put { family: *family, key: key.clone(), cell: cell.clone() },
            None => Write::Delete { family: *family, key: key.clone() },
        });
        ranges.chain(keys).collect()
    }
}

/// An iterator of a transaction, and what it has passed over so far.
struct Walk {
    entries: TransactionEntries,
    expected: Expected,
    family: Family,
    range: Range,
    /// Where the part that it is in began.
    near: Option<Bytes>,
}

pub struct OpenTransaction {
    transaction: Transaction,
    isolation: Isolation,
    durability: Durability,
    /// The commits that it sees: so many.
    start: usize,
    rows: Rc<Rows>,
    now_ms: u64,
    pending: Pending,
    /// What locked keys held when they were locked, where that differs from the snapshot.
    seen: BTreeMap<Key, Option<Bytes>>,
    /// Locked keys, with the number of commits that had been made.
    locked: BTreeMap<Key, usize>,
    savepoints: Vec<(Savepoint, Pending)>,
    read_keys: BTreeSet<Key>,
    read_ranges: Vec<(Family, Range)>,
    walk: Option<Walk>,
}

impl OpenTransaction {
    fn get(&self, family: Family, key: &Bytes) -> Option<Bytes> {
        let of = (family, key.clone());
        if let Some(cell) = self.pending.keys.get(&of) {
            return cell.as_ref()?.live(self.now_ms).cloned();
        }
        if self.pending.covers(family, key) {
            return None;
        }
        self.seen.get(&of).cloned().unwrap_or_else(|| get(&self.rows, family, key, self.now_ms))
    }

    /// Everything as it sees it.
    fn view(&self) -> Rows {
        let mut rows = (*self.rows).clone();
        for (key, value) in &self.seen {
            match value {
                Some(value) => _ = rows.insert(key.clone(), Cell { value: value.clone(), expires_at_ms: None }),
                None => _ = rows.remove(key),
            }
        }
        self.pending.writes().iter().for_each(|write| write.apply(&mut rows));
        rows
    }

    /// A read of a key that is no own write, nor known under a lock, is what the commit of a serializable one depends
    /// on.
    fn note_read(&mut self, family: Family, key: &Bytes) {
        let own = self.pending.has_written(family, key) || self.seen.contains_key(&(family, key.clone()));
        if self.isolation == Isolation::Serializable && !own {
            self.read_keys.insert((family, key.clone()));
        }
    }

    fn conflicts(&self, world: &World) -> bool {
        let written = |since: usize, family: Family, range: &Range| world.model.written_since(since, family, range);
        let mut keys = self.locked.clone();
        for key in self.pending.keys.keys() {
            keys.entry(key.clone()).or_insert(self.start);
        }
        let unlocked = self.read_keys.iter().filter(|key| !keys.contains_key(*key));
        keys.iter().any(|((family, key), since)| written(*since, *family, &only(key)))
            || self.pending.deleted.iter().any(|(family, range)| written(self.start, *family, range))
            || unlocked.clone().any(|(family, key)| written(self.start, *family, &only(key)))
            || self.read_ranges.iter().any(|(family, range)| written(self.start, *family, range))
    }

    /// One that a lock of another open transaction keeps from being locked, if any is.
    fn is_blocked<'a>(&self, world: &World, keys: impl Iterator<Item = &'a Key>) -> bool {
        let mut missing = keys.filter(|key| !self.locked.contains_key(*key));
        missing.any(|key| world.transactions.iter().any(|other| other.locked.contains_key(key)))
    }
}

impl World {
    pub fn transaction(&mut self, rng: &mut Rng) -> Result<()> {
        if self.transactions.is_empty() || (self.transactions.len() < OPEN_MAX && rng.chance(1, 6)) {
            self.begin(rng);
            return Ok(());
        }
        let at = rng.below(self.transactions.len() as u64) as usize;
        // Taken out, so that the others are those it can collide with. An error drops it.
        let mut open = self.transactions.swap_remove(at);
        match rng.below(24) {
            0..8 => self.write_in(&mut open, rng)?,
            8..11 => self.read_in(&mut open, rng)?,
            11..14 => self.scan_in(&mut open, rng)?,
            14..17 => self.lock_in(&mut open, rng)?,
            17..19 => self.savepoint_in(&mut open, rng)?,
            19..22 => return self.commit_of(open, rng),
            22 => {
                open.transaction.rollback();
                return Ok(());
            }
            _ => {
                self.check_view_of(&mut open, rng)?;
            }
        }
        self.transactions.push(open);
        Ok(())
    }

    fn begin(&mut self, rng: &mut Rng) {
        let isolation = if rng.chance(1, 2) { Isolation::Serializable } else { Isolation::Snapshot };
        let durability = draw::durability(rng);
        let options = TransactionOptions { isolation, durability, ..TransactionOptions::default() };
        self.say(|| format!("begin {isolation:?} {durability:?}"));
        let transaction = self.db().transaction_with(options).expect("the options are in range");
        assert_eq!(transaction.start(), self.model.last_sequence());
        self.transactions.push(OpenTransaction {
            transaction,
            isolation,
            durability,
            start: self.model.commits.len(),
            rows: self.model.rows.clone(),
            now_ms: self.now_ms(),
            pending: Pending::default(),
            seen: BTreeMap::new(),
            locked: BTreeMap::new(),
            savepoints: Vec::new(),
            read_keys: BTreeSet::new(),
            read_ranges: Vec::new(),
            walk: None,
        });
    }

    fn write_in(&mut self, open: &mut OpenTransaction, rng: &mut Rng) -> Result<()> {
        let write = draw::write(rng, open.now_ms);
        self.say(|| format!("in a transaction: {write:?}"));
        match write {
            Write::Put { family, key, cell } => {
                match cell.expires_at_ms {
                    Some(at) => open.transaction.put_expiring(family, &key, &cell.value, at)?,
                    None => open.transaction.put_in(family, &key, &cell.value)?,
                }
                open.pending.keys.insert((family, key), Some(cell));
            }
            Write::Delete { family, key } => {
                open.transaction.delete_in(family, &key)?;
                open.pending.keys.insert((family, key), None);
            }
            Write::DeleteRange { family, start, end } => {
                open.transaction.delete_range(family, &start..&end)?;
                let range = Range { start: Some(start), end: Some(end) };
                open.pending.keys.retain(|(of, key), _| *of != family || !range.contains(key));
                if !range.is_empty() {
                    open.pending.deleted.push((family, range));
                }
            }
        }
        Ok(())
    }

    fn read_in(&mut self, open: &mut OpenTransaction, rng: &mut Rng) -> Result<()> {
        let family = draw::family(rng);
        let keys: Vec<Bytes> = (0..rng.range(1..5)).map(|_| draw::key(rng)).collect();
        self.say(|| format!("in a transaction: get {} {keys:?}", family.0));
        let slices: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let many = open.transaction.multi_get(family, &slices)?;
        for (key, found) in keys.iter().zip(many) {
            open.note_read(family, key);
            assert_eq!(found, open.get(family, key), "multi_get of a transaction: {key:?}");
            assert_eq!(found, open.transaction.get_in(family, key)?, "get of a transaction: {key:?}");
            self.note(found.as_deref().unwrap_or(b"none"));
        }
        Ok(())
    }

    /// Continues with the iterator that is open, or opens one.
    fn scan_in(&mut self, open: &mut OpenTransaction, rng: &mut Rng) -> Result<()> {
        let mut walk = match open.walk.take() {
            Some(walk) if rng.chance(3, 4) => walk,
            _ => {
                let (family, range, direction) = (draw::family(rng), draw::range(rng), draw::direction(rng));
                let entries = open.transaction.entries(family, range.clone(), direction)?;
                let expected = Expected::new(
                    crate::model::entries(&open.view(), family, &range, direction, open.now_ms),
                    direction,
                );
                let range = Range { end: range.end.filter(|end| !end.is_empty()), ..range };
                let near = if direction == Direction::Forward { range.start.clone() } else { range.end.clone() };
                Walk { entries, expected, family, range, near }
            }
        };
        if rng.chance(1, 3) {
            let target = draw::key(rng);
            walk.entries.seek(&target)?;
            walk.expected.seek(&target);
            walk.near = match walk.expected.direction {
                Direction::Forward => walk.range.start.clone().max(Some(target)),
                Direction::Backward => match walk.range.end.clone() {
                    Some(end) if target >= end => Some(end),
                    _ => only(&target).end,
                },
            };
        }
        let limit = if rng.chance(1, 3) { usize::MAX } else { rng.below(5) as usize };
        for _ in 0..limit {
            let found = walk.entries.next().transpose()?;
            assert_eq!(found, walk.expected.next(), "an iterator of a transaction, {:?}", walk.expected.direction);
            self.note_entry(&found);
            if open.isolation == Isolation::Serializable {
                open.read_ranges.push((walk.family, walk.passed(found.as_ref().map(|(key, _)| key))));
            }
            if found.is_none() {
                break;
            }
        }
        open.walk = Some(walk);
        Ok(())
    }

    fn lock_in(&mut self, open: &mut OpenTransaction, rng: &mut Rng) -> Result<()> {
        let (family, key) = (draw::family(rng), draw::key(rng));
        let of = (family, key.clone());
        self.say(|| format!("in a transaction: get_for_update {} {key:?}", family.0));
        let answer = open.transaction.get_for_update(family, &key);
        if let Err(error @ (Error::Io { .. } | Error::Stopped(_) | Error::NoSpace { .. })) = answer {
            return Err(error);
        }
        if open.is_blocked(self, std::iter::once(&of)) {
            assert!(matches!(answer, Err(Error::LockTimeout { .. })), "{key:?} is locked by another: {answer:?}");
            self.note(b"locked");
            return Ok(());
        }
        if !open.locked.contains_key(&of) {
            let changed = self.model.written_since(open.start, family, &only(&key));
            if changed && (open.isolation == Isolation::Serializable || open.pending.has_written(family, &key)) {
                assert!(matches!(answer, Err(Error::Conflict { .. })), "{key:?} was written since: {answer:?}");
                open.locked.insert(of, open.start);
                self.note(b"conflict");
                return Ok(());
            }
            let since = if changed { self.model.commits.len() } else { open.start };
            if changed {
                open.seen.insert(of.clone(), get(&self.model.rows, family, &key, self.now_ms()));
            }
            open.locked.insert(of, since);
        }
        open.note_read(family, &key);
        let found = answer?;
        assert_eq!(found, open.get(family, &key), "get_for_update {key:?}");
        self.note(found.as_deref().unwrap_or(b"none"));
        Ok(())
    }

    fn savepoint_in(&mut self, open: &mut OpenTransaction, rng: &mut Rng) -> Result<()> {
        if open.savepoints.is_empty() || rng.chance(1, 2) {
            open.savepoints.push((open.transaction.savepoint(), open.pending.clone()));
            return Ok(());
        }
        let at = rng.below(open.savepoints.len() as u64) as usize;
        let (savepoint, pending) = open.savepoints[at].clone();
        open.transaction.rollback_to(&savepoint)?;
        open.pending = pending;
        for (gone, _) in open.savepoints.drain(at + 1..) {
            let error = open.transaction.rollback_to(&gone).expect_err("a savepoint that was undone");
            assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        }
        Ok(())
    }

    /// The whole of what it sees, without leaving a mark in a read set.
    fn check_view_of(&mut self, open: &mut OpenTransaction, rng: &mut Rng) -> Result<()> {
        if open.isolation == Isolation::Serializable {
            return Ok(());
        }
        let (family, direction) = (draw::family(rng), draw::direction(rng));
        let range = Range::all();
        let mut found = open.transaction.entries_with(family, range.clone(), direction, ReadOptions::default())?;
        let mut expected = Expected::new(entries(&open.view(), family, &range, direction, open.now_ms), direction);
        self.walk(&mut found, &mut expected, usize::MAX)
    }

    fn commit_of(&mut self, open: OpenTransaction, rng: &mut Rng) -> Result<()> {
        let read_only = open.pending.is_empty();
        let blocked = !read_only && open.is_blocked(self, open.pending.keys.keys());
        let conflicts = !read_only && open.conflicts(self);
        let (writes, durability, start) = (open.pending.writes(), open.durability, open.transaction.start());
        let submitted = rng.chance(1, 4);
        self.say(|| format!("commit ({submitted}) {blocked} {conflicts} {writes:?}"));
        let answer = if submitted { self.submit(open.transaction) } else { open.transaction.commit() };
        match answer {
            Err(Error::LockTimeout { .. }) => {
                assert!(blocked && !submitted, "no other transaction has locked what it writes");
                self.note(b"locked");
                Ok(())
            }
            Err(Error::Conflict { .. }) => {
                assert!(conflicts || (blocked && submitted), "a conflict with nothing");
                self.note(b"conflict");
                Ok(())
            }
            Ok(sequence) if read_only => {
                assert_eq!(sequence, start);
                self.note(b"read only");
                Ok(())
            }
            Ok(sequence) => {
                assert!(!blocked && !conflicts, "committed as {sequence}; blocked {blocked}, conflicts {conflicts}");
                self.note(b"committed");
                self.committed(Ok(sequence), writes, durability)
            }
            Err(error) if blocked || conflicts => Err(error),
            Err(error) => self.committed(Err(error), writes, durability),
        }
    }

    fn submit(&mut self, transaction: Transaction) -> Result<SequenceNumber> {
        let (sender, receiver) = mpsc::channel();
        transaction.submit(Box::new(move |result| sender.send(result).expect("the receiver waits")));
        loop {
            if let Ok(answer) = receiver.try_recv() {
                return answer;
            }
            assert!(kontiki_env::tasks::Tasks::step(&self.machine.tasks), "no job answers");
        }
    }
}

impl Walk {
    /// What it has passed over, now that it has given `key`, or said that nothing follows.
    fn passed(&self, key: Option<&Bytes>) -> Range {
        match self.expected.direction {
            Direction::Forward => {
                let end = key.map_or_else(|| self.range.end.clone(), |key| only(key).end);
                Range { start: self.near.clone(), end }
            }
            Direction::Backward => {
                let start = key.cloned().or_else(|| self.range.start.clone());
                Range { start, end: self.near.clone() }
            }
        }
    }
}
