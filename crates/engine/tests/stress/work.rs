//! What the threads do.

use crate::copies;
use crate::world::{ACCOUNTS, ECHO, Worker, account, check_snapshot, number};
use kontiki_engine::{
    Commit, Durability, Error, Family, FamilySpec, Precondition, Range, Result, Transaction, TransactionOptions,
    Unchanged, WriteBatch,
};
use std::sync::mpsc::channel;
use std::time::Duration;

pub type Work = fn(&Worker);

pub const WORKERS: &[(&str, Work)] = &[
    ("transfer", |worker| transfer(worker, Durability::Sync)),
    ("buffered transfer", |worker| transfer(worker, Durability::Buffered)),
    ("pessimistic transfer", pessimistic_transfer),
    ("condition", condition),
    ("submitted condition", submitted_condition),
    ("echo", echo),
    ("ingest", ingest),
    ("put", put),
    ("large values", large_values),
    ("families", families),
    ("compaction", compaction),
    ("collection", collection),
    ("reader", reader),
    ("subscriber", subscriber),
    ("checkpoint", copies::checkpoint),
    ("backup", copies::backup),
];

fn one(key: &[u8], value: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, key, value);
    batch
}

fn move_money(tx: &mut Transaction, turn: u64, lock: bool) -> Result<()> {
    let (from, to) = (account(turn * 7 % ACCOUNTS), account((turn * 5 + 3) % ACCOUNTS));
    if from == to {
        return Ok(());
    }
    let mut balance = |key: &[u8]| {
        let found = if lock { tx.get_for_update(Family::DEFAULT, key)? } else { tx.get(key)? };
        Ok(number(&found.expect("every account is there")))
    };
    let (left, right) = (balance(&from)?, balance(&to)?);
    let amount = left.min(turn % 9);
    tx.put(&from, (left - amount).to_le_bytes())?;
    tx.put(&to, (right + amount).to_le_bytes())
}

/// A transaction that lost too often has moved nothing.
fn unless_lost(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(Error::Conflict { .. } | Error::Deadlock { .. } | Error::LockTimeout { .. }) => Ok(()),
        other => other,
    }
}

fn transfer(worker: &Worker, durability: Durability) {
    let options = TransactionOptions { durability, ..TransactionOptions::default() };
    worker.repeat(|world, turn| unless_lost(world.db.transact_with(&options, |tx| move_money(tx, turn, false))));
}

fn pessimistic_transfer(worker: &Worker) {
    worker.repeat(|world, turn| unless_lost(world.db.transact(|tx| move_money(tx, turn + 1, true))));
}

fn condition(worker: &Worker) {
    worker.repeat(|world, turn| {
        let durability = if turn % 4 == 0 { Durability::Sync } else { Durability::Buffered };
        let absent = Precondition::Absent { family: Family::DEFAULT, key: "never".into() };
        world.db.write_if(one(b"condition", &turn.to_le_bytes()), &[absent], durability).map(drop)
    });
}

fn submitted_condition(worker: &Worker) {
    worker.repeat(|world, turn| {
        let (sender, receiver) = channel();
        let snapshot = world.db.snapshot();
        let since = Unchanged::Key { family: Family::DEFAULT, key: "never".into(), since: snapshot.sequence() };
        for i in 0..8 {
            let batch = one(format!("submitted/{i}").as_bytes(), &turn.to_le_bytes());
            let commit = Commit { unchanged: vec![since.clone()], ..Commit::new(batch, Durability::Sync) };
            let sender = sender.clone();
            world.db.submit(commit, Box::new(move |answer| sender.send(answer).expect("received")));
        }
        // All of them: an answer without a receiver would panic, and stop the database.
        let answers: Vec<Result<u64>> = (0..8).map(|_| receiver.recv().expect("an answer for each")).collect();
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    });
}

/// Writes what it has read of the newest ingest.
fn echo(worker: &Worker) {
    let options = TransactionOptions::serializable();
    worker.repeat(|world, _| {
        unless_lost(world.db.transact_with(&options, |tx| {
            let Some(generation) = tx.get(b"generation/03")? else { return Ok(()) };
            tx.put(ECHO, &generation)
        }))
    });
}

fn ingest(worker: &Worker) {
    worker.repeat(|world, turn| world.ingest_generation(turn % 2 == 0));
}

fn put(worker: &Worker) {
    worker.repeat(|world, turn| match turn % 5 {
        0 => world.db.put(b"plain", turn.to_le_bytes()),
        1 => {
            let mut batch = WriteBatch::new();
            batch.delete_range(Family::DEFAULT, b"many/01"..b"many/07");
            world.db.write(batch, Durability::Buffered).map(drop)
        }
        _ => world.db.write(one(format!("many/{:02}", turn % 64).as_bytes(), &[3; 80]), Durability::Buffered).map(drop),
    });
}

fn large_values(worker: &Worker) {
    worker.repeat(|world, turn| {
        let durability = if turn % 16 == 0 { Durability::Sync } else { Durability::Buffered };
        world.db.write(one(format!("large/{:02}", turn % 40).as_bytes(), &[turn as u8; 900]), durability).map(drop)
    });
}

fn families(worker: &Worker) {
    worker.repeat(|world, turn| {
        let family = Family(u32::try_from(world.round * 100_000 + turn + 1).expect("few enough"));
        world.db.create_family(FamilySpec::new(family, format!("family {}", family.0)))?;
        for i in 0..20u64 {
            let mut batch = one(b"beside", &i.to_le_bytes());
            batch.put(family, i.to_le_bytes(), b"value");
            world.db.write(batch, Durability::Buffered)?;
        }
        world.db.transact(|tx| tx.put_in(family, b"in a transaction", b"value"))?;
        world.db.drop_family(family)
    });
}

fn compaction(worker: &Worker) {
    worker.repeat(|world, turn| match turn % 3 {
        0 => world.db.compact(),
        1 => world.db.compact_range(Family::DEFAULT, Range::all()),
        _ => world.db.flush(),
    });
}

fn collection(worker: &Worker) {
    worker.repeat(|world, _| world.db.collect_value_garbage().map(drop));
}

fn reader(worker: &Worker) {
    worker.repeat(|world, _| {
        // Only so that it ends with the others.
        world.db.get(b"plain")?;
        check_snapshot(&world.db.snapshot(), "a snapshot").or_else(|error| match error {
            Error::Closed => Ok(()),
            error => Err(error),
        })?;
        let stats = world.db.stats();
        assert_eq!(stats.health.stopped, None);
        Ok(())
    });
}

fn subscriber(worker: &Worker) {
    worker.repeat(|world, _| {
        let mut changes = world.db.changes(world.db.snapshot().sequence())?;
        let mut last = changes.position();
        for _ in 0..50 {
            match changes.wait(Duration::from_millis(20)) {
                Ok(Some(change)) => {
                    assert!(change.sequence > last, "in order");
                    last = change.sequence;
                }
                Ok(None) => {}
                Err(Error::ChangesGone { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    });
}
