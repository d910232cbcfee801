//! What a script consists of: one step, drawn and carried out, with its answers compared.

use crate::draw;
use crate::knobs::FAMILIES;
use crate::model::{Write, batch_of, entries, get};
use crate::world::{Expected, Moment, World};
use bytes::Bytes;
use kontiki_engine::{
    Durability, Entries, Error, Family, Precondition, Range, ReadOptions, Result, Scan, SequenceNumber, Snapshot, View,
};
use kontiki_env::rng::Rng;
use std::time::Duration;

/// Held open at most, of each kind.
const HELD_MAX: usize = 4;

impl World {
    /// Takes the answer to a commit into the model. A refusal with a reason is passed on as an answer.
    pub fn committed(
        &mut self,
        answer: Result<SequenceNumber>,
        writes: Vec<Write>,
        durability: Durability,
    ) -> Result<()> {
        match answer {
            Ok(sequence) => {
                self.model.commit(sequence, writes, durability == Durability::Sync);
                Ok(())
            }
            // Refused without a trace: it must never show up.
            Err(error @ (Error::NoSpace { .. } | Error::Stopped(_))) => Err(error),
            Err(error) => {
                self.model.unknown = Some(writes);
                Err(error)
            }
        }
    }

    pub fn write(&mut self, rng: &mut Rng) -> Result<()> {
        let writes = draw::writes(rng, self.now_ms());
        let durability = draw::durability(rng);
        self.say(|| format!("write {durability:?} {}", summary(&writes)));
        let answer = self.db().write(batch_of(&writes), durability);
        self.committed(answer, writes, durability)
    }

    /// Many range deletes in one batch or one after the other, in one family: small ones, some that lie in others, and
    /// puts between.
    pub fn delete_ranges(&mut self, rng: &mut Rng) -> Result<()> {
        let one_batch = rng.chance(1, 2);
        let writes = draw::range_deletes(rng, self.now_ms());
        let durability = draw::durability(rng);
        self.say(|| format!("range deletes {durability:?}, one batch: {one_batch} {}", summary(&writes)));
        let batches = if one_batch { vec![writes] } else { writes.into_iter().map(|write| vec![write]).collect() };
        for writes in batches {
            let answer = self.db().write(batch_of(&writes), durability);
            self.committed(answer, writes, durability)?;
        }
        Ok(())
    }

    pub fn write_if(&mut self, rng: &mut Rng) -> Result<()> {
        let now_ms = self.now_ms();
        let mut holds = true;
        let conditions: Vec<Precondition> = (0..rng.range(1..4))
            .map(|_| {
                let (family, key) = (draw::family(rng), draw::key(rng));
                let found = get(&self.model.rows, family, &key, now_ms);
                let condition = match (rng.below(4), &found) {
                    (0, _) => Precondition::Absent { family, key },
                    (1, _) => Precondition::Present { family, key },
                    // Mostly true ones, so that not all are refused.
                    (_, Some(value)) => Precondition::Equals { family, key, value: value.clone() },
                    (_, None) => Precondition::Absent { family, key },
                };
                holds &= condition.holds(found.as_deref());
                condition
            })
            .collect();
        let writes = draw::writes(rng, now_ms);
        let durability = draw::durability(rng);
        self.say(|| format!("write_if {conditions:?} ({holds}) {}", summary(&writes)));
        let answer = self.db().write_if(batch_of(&writes), &conditions, durability);
        self.note(if holds { b"holds" } else { b"refused" });
        match answer {
            Err(Error::Conflict { family, key }) => {
                assert!(!holds, "refused although {conditions:?} hold");
                assert!(conditions.iter().any(|condition| condition.key() == (family, &key)));
                Ok(())
            }
            Ok(sequence) => {
                assert!(holds, "done although {conditions:?} do not hold: {sequence}");
                self.committed(Ok(sequence), writes, durability)
            }
            Err(error) if holds => self.committed(Err(error), writes, durability),
            Err(error) => Err(error),
        }
    }

    pub fn read_keys(&mut self, rng: &mut Rng) -> Result<()> {
        let family = draw::family(rng);
        let now_ms = self.now_ms();
        let keys: Vec<Bytes> = (0..rng.range(1..12)).map(|_| draw::key(rng)).collect();
        let slices: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let held = rng.below(2 * self.moments.len() as u64 + 1) as usize;
        let (found, rows, now_ms) = match self.moments.get(held) {
            Some(moment) => (moment.snapshot.multi_get(family, &slices)?, moment.rows.clone(), moment.now_ms),
            None => (self.db().multi_get(family, &slices)?, self.model.rows.clone(), now_ms),
        };
        assert_eq!(found.len(), keys.len());
        for (key, found) in keys.iter().zip(found) {
            let expected = get(&rows, family, key, now_ms);
            assert_eq!(found, expected, "multi_get {family:?} {key:?}");
            let alone = match self.moments.get(held) {
                Some(moment) => moment.snapshot.get_in(family, key)?,
                None => self.db().get_in(family, key)?,
            };
            assert_eq!(alone, expected, "get {family:?} {key:?}");
            self.note(found.as_deref().unwrap_or(b"none"));
        }
        Ok(())
    }

    /// Takes a snapshot, looks into one, or lets one go.
    pub fn snapshots(&mut self, rng: &mut Rng) -> Result<()> {
        if self.moments.len() < HELD_MAX && rng.chance(1, 2) {
            let snapshot = self.db().snapshot();
            assert_eq!(snapshot.sequence(), self.model.last_sequence(), "a snapshot holds every answered commit");
            self.moments.push(Moment { snapshot, rows: self.model.rows.clone(), now_ms: self.now_ms() });
        } else if !self.moments.is_empty() {
            let at = rng.below(self.moments.len() as u64) as usize;
            if rng.chance(1, 3) {
                self.moments.swap_remove(at);
                return Ok(());
            }
            let (mut scan, mut expected) = self.open_scan(rng, Some(at))?;
            self.walk(&mut scan, &mut expected, usize::MAX)?;
        }
        Ok(())
    }

    /// Opens an iterator, moves one, or lets one go.
    pub fn scan(&mut self, rng: &mut Rng) -> Result<()> {
        if self.scans.len() < HELD_MAX && rng.chance(1, 3) {
            let scan = self.open_scan(rng, None)?;
            self.scans.push(scan);
        }
        if self.scans.is_empty() {
            return Ok(());
        }
        let at = rng.below(self.scans.len() as u64) as usize;
        let (mut scan, mut expected) = self.scans.swap_remove(at);
        match rng.below(6) {
            0 => return Ok(()),
            1 | 2 => {
                let target = draw::key(rng);
                scan.seek(&target)?;
                expected.seek(&target);
                self.walk(&mut scan, &mut expected, rng.below(6) as usize)?;
            }
            3 => self.walk(&mut scan, &mut expected, usize::MAX)?,
            _ => self.walk(&mut scan, &mut expected, rng.below(8) as usize)?,
        }
        self.scans.push((scan, expected));
        Ok(())
    }

    /// Of the present, or of a moment that is held.
    fn open_scan(&mut self, rng: &mut Rng, of: Option<usize>) -> Result<(Scan, Expected)> {
        let (family, range, direction) = (draw::family(rng), draw::range(rng), draw::direction(rng));
        let options = match rng.below(4) {
            0 => ReadOptions::key_only(),
            1 => ReadOptions::one_pass(),
            _ => ReadOptions::default(),
        };
        self.say(|| format!("scan {family:?} {range:?} {direction:?} of {of:?}"));
        let (scan, rows, now_ms) = match of.map(|of| &self.moments[of]) {
            Some(moment) => {
                let scan = moment.snapshot.scan(family, range.clone(), direction, options)?;
                (scan, &moment.rows, moment.now_ms)
            }
            None => (self.db().scan(family, range.clone(), direction, options)?, &self.model.rows, self.now_ms()),
        };
        let mut list = entries(rows, family, &range, direction, now_ms);
        if options.key_only {
            list.iter_mut().for_each(|(_, value)| *value = Bytes::new());
        }
        Ok((scan, Expected::new(list, direction)))
    }

    pub fn walk(&mut self, scan: &mut dyn Entries, expected: &mut Expected, limit: usize) -> Result<()> {
        for _ in 0..limit {
            let found = scan.next().transpose()?;
            assert_eq!(found, expected.next(), "an iterator, {:?}", expected.direction);
            self.note_entry(&found);
            if found.is_none() {
                break;
            }
        }
        Ok(())
    }

    pub fn work(&mut self, rng: &mut Rng) -> Result<()> {
        if rng.chance(1, 5) {
            self.run_until_idle()
        } else {
            self.run_jobs(rng.below(12))
        }
        Ok(())
    }

    pub fn time(&mut self, rng: &mut Rng) -> Result<()> {
        let milliseconds = if rng.chance(1, 10) { rng.below(60_000) } else { rng.below(3000) };
        self.let_pass(Duration::from_millis(milliseconds));
        Ok(())
    }

    pub fn flush(&mut self, _: &mut Rng) -> Result<()> {
        self.say(|| "flush".into());
        self.db().flush()?;
        self.model.all_durable();
        Ok(())
    }

    pub fn compact(&mut self, _: &mut Rng) -> Result<()> {
        self.say(|| "compact".into());
        self.db().compact()?;
        self.model.all_durable();
        Ok(())
    }

    /// Garbage is collected; nothing that can be read changes.
    pub fn collect(&mut self, _: &mut Rng) -> Result<()> {
        let before = self.db().snapshot().sequence();
        self.say(|| "collect value garbage".into());
        self.db().collect_value_garbage()?;
        assert_eq!(self.db().snapshot().sequence(), before, "a relocation takes no sequence number");
        Ok(())
    }

    /// Everything, in the ways in which it can be read.
    pub fn look_at_all(&mut self, rng: &mut Rng) -> Result<()> {
        self.check_all("now")?;
        let view: Snapshot = self.db().snapshot();
        let family: Family = *rng.pick(&FAMILIES).expect("there are some");
        let direction = draw::direction(rng);
        let mut found = view.entries(family, Range::all(), direction)?;
        let list = entries(&self.model.rows, family, &Range::all(), direction, self.now_ms());
        let mut expected = Expected::new(list, direction);
        self.walk(&mut *found, &mut expected, usize::MAX)
    }
}

fn summary(writes: &[Write]) -> String {
    let one = |write: &Write| match write {
        Write::Put { family, key, cell } => {
            let end = cell.expires_at_ms.map_or(String::new(), |at| format!(" until {at}"));
            format!("put {} {key:?} {} bytes{end}", family.0, cell.value.len())
        }
        Write::Delete { family, key } => format!("delete {} {key:?}", family.0),
        Write::DeleteRange { family, start, end } => format!("delete {} {start:?}..{end:?}", family.0),
    };
    writes.iter().map(one).collect::<Vec<_>>().join(", ")
}
