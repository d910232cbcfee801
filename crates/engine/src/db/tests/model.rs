//! A scripted workload and a model of what it must leave, for tests that take the power away.
//!
//! Logged commit number `i` carries its number: in the key `last` of the default family if it has a batch, in the state
//! of stream 0 if it has stream operations. So the number of commits that a recovered database holds can be read from
//! it, and then *everything* in it must be what the model holds after exactly that many. Derived batches go to the
//! other family, numbered the same way.

use super::*;
use crate::{Error, Result, StreamContents, StreamId};
use kontiki_env::rng::Rng;
use std::collections::BTreeMap;

type Rows = BTreeMap<String, String>;

/// What a database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) default: Rows,
    pub(super) streams: BTreeMap<u64, StreamContents>,
}

impl Model {
    fn apply(&mut self, commit: &Commit) {
        apply_batch(&mut self.default, &commit.batch);
        for op in &commit.streams {
            if let StreamOp::Remove { stream } = op {
                self.streams.remove(&stream.0);
                continue;
            }
            let stream = self.streams.entry(op.stream().0).or_default();
            match op {
                StreamOp::Append { first_index, entries, .. } => {
                    stream.entries.truncate((first_index - 1 - stream.truncated_through) as usize);
                    stream.entries.extend(entries.iter().cloned());
                }
                StreamOp::State { state, .. } => stream.state = state.clone(),
                StreamOp::Truncate { through_index, .. } => {
                    let gone = through_index.saturating_sub(stream.truncated_through);
                    stream.entries.drain(..(gone as usize).min(stream.entries.len()));
                    stream.truncated_through = stream.truncated_through.max(*through_index);
                }
                StreamOp::Remove { .. } => {}
            }
        }
    }

    /// Logged commit number `number`: puts, deletes and stream operations that fit.
    fn next_commit(&self, number: usize, rng: &mut Rng) -> Commit {
        let mut batch = WriteBatch::new();
        let mut ops = Vec::new();
        let kind = rng.below(4);
        if kind > 0 {
            // Now and then a record that is larger than a segment.
            let length = if rng.chance(1, 40) { 6000 } else { rng.below(150) };
            let value = format!("{number}-{}", "v".repeat(length as usize));
            batch.put(Family::DEFAULT, format!("key {}", rng.below(20)).as_bytes(), value.as_bytes());
            batch.delete(Family::DEFAULT, format!("key {}", rng.below(20)).as_bytes());
            batch.put(Family::DEFAULT, b"last", number.to_string().as_bytes());
        }
        if kind < 2 {
            ops.push(StreamOp::State { stream: StreamId(0), state: Bytes::from(number.to_string()) });
            ops.push(self.next_op(1 + rng.below(3), number, rng));
        }
        let durability = if rng.chance(1, 2) { Durability::Sync } else { Durability::Buffered };
        Commit { batch, streams: ops, durability, unchanged: vec![] }
    }

    fn next_op(&self, stream: u64, number: usize, rng: &mut Rng) -> StreamOp {
        let id = StreamId(stream);
        let known = self.streams.get(&stream).cloned().unwrap_or_default();
        let (low, high) = (known.truncated_through + 1, known.truncated_through + known.entries.len() as u64 + 1);
        match rng.below(10) {
            0 => StreamOp::Remove { stream: id },
            1 | 2 => StreamOp::Truncate { stream: id, through_index: rng.range(low..high + 3) - 1 },
            other => {
                let first_index = if other == 3 { rng.range(low..high + 1) } else { high };
                let entry = |i: u64| Bytes::from(format!("{number}/{i} {}", "e".repeat(rng.below(120) as usize)));
                StreamOp::Append { stream: id, first_index, entries: (0..3).map(entry).collect() }
            }
        }
    }
}

fn apply_batch(rows: &mut Rows, batch: &WriteBatch) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for op in batch.ops() {
        match op {
            crate::BatchOp::Put { key, value, .. } => rows.insert(text(key), text(value)),
            crate::BatchOp::Delete { key, .. } => rows.remove(&text(key)),
            other => panic!("this model does not know {other:?}"),
        };
    }
}

/// A run of the script: what was tried, and what was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Run {
    rng: Rng,
    /// `states[i]`: after `i` logged commits. The last one may be of a commit that was not answered.
    states: Vec<Model>,
    /// That many logged commits must survive power loss, and that many must be visible.
    durable: usize,
    visible: usize,
    /// `derived[j]`: what the other family holds after `j` derived commits, and how many logged ones went before the
    /// last of them.
    derived: Vec<(Rows, usize)>,
    derived_durable: usize,
}

impl Run {
    pub(super) fn new(seed: u64) -> Run {
        Run {
            rng: Rng::new(seed),
            states: vec![Model::default()],
            durable: 0,
            visible: 0,
            derived: vec![Default::default()],
            derived_durable: 0,
        }
    }

    /// Executes `steps` of the script, until an error.
    pub(super) fn go(&mut self, machine: &SimMachine, db: &Db, steps: usize) -> Result<()> {
        for _ in 0..steps {
            match self.rng.below(40) {
                0 => {
                    let (logged, derived) = (self.visible, self.derived.len() - 1);
                    db.flush()?;
                    (self.durable, self.derived_durable) = (logged, derived);
                }
                1 => db.compact()?,
                2..=4 => {
                    machine.tasks.run_until_idle(10_000);
                }
                5..=9 => self.derive(db)?,
                _ => self.commit(db)?,
            }
        }
        Ok(())
    }

    fn commit(&mut self, db: &Db) -> Result<()> {
        let last = self.states.last().expect("there is a first state");
        let commit = last.next_commit(self.states.len(), &mut self.rng);
        let mut next = last.clone();
        next.apply(&commit);
        self.states.push(next);
        let durability = commit.durability;
        match db.commit(commit) {
            Ok(_) => {}
            // Refused without a trace: it must never show up.
            Err(error @ (Error::NoSpace { .. } | Error::Stopped(_))) => {
                self.states.pop();
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        self.visible = self.states.len() - 1;
        if durability == Durability::Sync {
            self.durable = self.visible;
        }
        Ok(())
    }

    fn derive(&mut self, db: &Db) -> Result<()> {
        let (mut rows, _) = self.derived.last().cloned().expect("there is a first state");
        let mut batch = WriteBatch::new();
        let number = self.derived.len().to_string();
        batch.put(OTHER, format!("derived {}", self.rng.below(9)).as_bytes(), number.as_bytes());
        batch.put(OTHER, b"last", number.as_bytes());
        apply_batch(&mut rows, &batch);
        self.derived.push((rows, self.states.len() - 1));
        db.write(batch, Durability::Derived).map(drop)
    }

    /// What must hold while the process that wrote it runs.
    pub(super) fn check_live(&self, db: &Db) -> std::result::Result<(), String> {
        let found = contents(db).map_err(|error| error.to_string())?;
        if found.0 != self.states[self.visible] {
            return Err(difference("the running database", &found.0, &self.states[self.visible]));
        }
        Ok(())
    }

    /// As [`Run::check_live`], without the streams.
    pub(super) fn check_live_rows(&self, db: &Db) -> std::result::Result<(), String> {
        let rows = try_dump(&db.snapshot(), Family::DEFAULT).map_err(|error| error.to_string())?;
        let found = Model { default: rows.into_iter().collect(), ..self.states[self.visible].clone() };
        if found != self.states[self.visible] {
            return Err(difference("the running database", &found, &self.states[self.visible]));
        }
        Ok(())
    }

    /// What must hold after a power loss (or, if `killed`, after the process alone died). Makes what was found the
    /// present of the run, so that it can go on.
    pub(super) fn check_recovered(&mut self, db: &Db, killed: bool) -> std::result::Result<(), String> {
        let (found, other) = contents(db).map_err(|error| format!("after recovery: {error}"))?;
        let count = found.commits();
        let least = if killed { self.visible } else { self.durable };
        if count < least || count >= self.states.len() {
            let most = self.states.len() - 1;
            return Err(format!("{count} commits are there; at least {least} must be, at most {most} were made"));
        }
        if found != self.states[count] {
            return Err(difference(&format!("recovered at {count}"), &found, &self.states[count]));
        }
        let derived = number(other.get("last"));
        let Some((rows, logged_before)) = self.derived.get(derived) else {
            return Err(format!("derived commit {derived} was never made"));
        };
        if *rows != other || derived < self.derived_durable {
            let least = self.derived_durable;
            return Err(format!("{derived} derived commits, at least {least} must be: {other:?}, not {rows:?}"));
        }
        if *logged_before > count {
            return Err(format!("derived commit {derived} survived, {logged_before} logged ones before it did not"));
        }
        self.states.truncate(count + 1);
        self.derived.truncate(derived + 1);
        // What recovery replayed is durable from then on, whatever was promised before.
        (self.visible, self.durable, self.derived_durable) = (count, count, derived);
        Ok(())
    }
}

impl Model {
    fn commits(&self) -> usize {
        let state = self.streams.get(&0).map(|stream| String::from_utf8_lossy(&stream.state).into_owned());
        number(self.default.get("last")).max(number(state.as_ref()))
    }
}

fn number(text: Option<&String>) -> usize {
    text.map_or(0, |text| text.parse().expect("numbers were written"))
}

fn contents(db: &Db) -> Result<(Model, Rows)> {
    let snapshot = db.snapshot();
    let mut streams = BTreeMap::new();
    for id in db.streams() {
        streams.insert(id.0, db.stream(id)?);
    }
    let default = try_dump(&snapshot, Family::DEFAULT)?.into_iter().collect();
    Ok((Model { default, streams }, try_dump(&snapshot, OTHER)?.into_iter().collect()))
}

fn difference(what: &str, found: &Model, expected: &Model) -> String {
    let mut lines = vec![format!("{what}:")];
    for key in found.default.keys().chain(expected.default.keys()) {
        if found.default.get(key) != expected.default.get(key) {
            lines.push(format!("  {key}: {:?}, not {:?}", found.default.get(key), expected.default.get(key)));
        }
    }
    for id in found.streams.keys().chain(expected.streams.keys()) {
        if found.streams.get(id) != expected.streams.get(id) {
            lines.push(format!("  stream {id}: {:?}, not {:?}", found.streams.get(id), expected.streams.get(id)));
        }
    }
    lines.join("\n")
}
