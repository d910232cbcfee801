//! The change feed: what a subscriber is given is what was committed, in order, and it loses nothing of it to a power
//! loss.

use crate::model::{Cell, batch_of};
use crate::world::World;
use bytes::Bytes;
use kontiki_engine::{BatchOp, Changes, ChangesOptions, Error, Family, Result, WriteBatch};
use kontiki_env::rng::Rng;
use std::collections::BTreeMap;

/// Open at once at most.
const SUBSCRIBERS_MAX: usize = 3;

pub struct Subscriber {
    changes: Changes,
    durable: bool,
    /// The number of the commit (an index in the model) that comes next.
    next: usize,
}

impl World {
    /// Subscribes, or continues with a subscription.
    pub fn feed(&mut self, rng: &mut Rng) -> Result<()> {
        if self.subscribers.len() < SUBSCRIBERS_MAX && rng.chance(1, 3) {
            let next = rng.below(self.model.commits.len() as u64 + 1) as usize;
            let durable = rng.chance(1, 2);
            let mut options = ChangesOptions::from(self.model.sequence_before(next));
            options.durable = durable;
            match self.db().changes_with(options) {
                Ok(changes) => self.subscribers.push(Subscriber { changes, durable, next }),
                // The log is as short as the options of this run allow.
                Err(Error::ChangesGone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if self.subscribers.is_empty() {
            return Ok(());
        }
        let at = rng.below(self.subscribers.len() as u64) as usize;
        let mut subscriber = self.subscribers.swap_remove(at);
        for _ in 0..rng.range(1..80) {
            let change = match subscriber.changes.next() {
                Ok(Some(change)) => change,
                Ok(None) => {
                    let least = if subscriber.durable { 0 } else { self.model.commits.len() };
                    assert!(subscriber.next >= least, "the feed ends before what is visible");
                    break;
                }
                Err(Error::ChangesGone { .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            let commit = &self.model.commits[subscriber.next];
            assert_eq!(change.sequence, commit.sequence, "batches come in order, none is left out");
            // A transaction joins ranges that touch, and puts its families in order.
            let as_written = change.batch == batch_of(&commit.writes);
            // The keys of an ingest are not in the log.
            let as_written = as_written || !change.ingested.is_empty();
            assert!(as_written || effect(&change.batch) == effect(&batch_of(&commit.writes)), "{change:?}");
            subscriber.next += 1;
            assert_eq!(subscriber.changes.position(), change.sequence);
            if subscriber.durable {
                self.model.durable = self.model.durable.max(subscriber.next);
            }
        }
        self.subscribers.push(subscriber);
        Ok(())
    }
}

type Point = (Family, Bytes);
type Effect = (BTreeMap<Point, Option<Cell>>, Vec<(Family, Bytes, Bytes)>);

/// What a batch does: the last word on each key, and the ranges that it deletes before, joined.
fn effect(batch: &WriteBatch) -> Effect {
    let copy = Bytes::copy_from_slice;
    let mut points: BTreeMap<Point, Option<Cell>> = BTreeMap::new();
    let mut ranges = Vec::new();
    for op in batch.ops() {
        let at = (op.family(), copy(op.key()));
        match op {
            BatchOp::Put { value, .. } => {
                points.insert(at, Some(Cell { value: copy(value), expires_at_ms: None }));
            }
            BatchOp::PutExpiring { value, expires_at_ms, .. } => {
                points.insert(at, Some(Cell { value: copy(value), expires_at_ms: Some(expires_at_ms) }));
            }
            BatchOp::Delete { .. } => _ = points.insert(at, None),
            BatchOp::DeleteRange { family, start, end } => {
                let end = &crate::model::end_of(&copy(end))[..];
                points.retain(|(of, key), _| *of != family || key < start || key >= end);
                if start < end {
                    ranges.push((family, copy(start), copy(end)));
                }
            }
        }
    }
    ranges.sort();
    let mut joined: Vec<(Family, Bytes, Bytes)> = Vec::new();
    for (family, start, end) in ranges {
        match joined.last_mut() {
            Some((of, _, last)) if *of == family && start <= *last => *last = end.max(last.clone()),
            _ => joined.push((family, start, end)),
        }
    }
    (points, joined)
}
