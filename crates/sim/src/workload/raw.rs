//! Raw puts, gets and deletes of few keys by several clients. Every written value is unique.

use super::{Asked, Records, Router};
use crate::cluster::wire::{Ask, Told};
use crate::history::{Answer, Operation, Outcome};
use bytes::Bytes;
use kontiki_env::rng::Rng;
use kontiki_proto::kvrpcpb::{RawDeleteRequest, RawGetRequest, RawPutRequest};
use std::time::Duration;

/// How raw clients behave.
#[derive(Clone, Debug)]
pub struct RawKnobs {
    /// Keys in use at a time: few, so that operations on one key overlap.
    pub keys: u64,
    /// A set of keys is given up for the next after so much time: the search of the checker is exponential in what
    /// happens to one key.
    pub rotate: Duration,
    /// Of a hundred operations, gets.
    pub gets_percent: u64,
    /// Of a hundred operations, deletes; only on the odd keys, so that the others can be checked without a search.
    pub deletes_percent: u64,
    /// Longest pause between two operations, milliseconds.
    pub pause_ms_max: u64,
    /// Longest value, bytes.
    pub value_bytes_max: u64,
}

impl RawKnobs {
    /// Draws a workload.
    pub fn draw(rng: &mut Rng) -> RawKnobs {
        RawKnobs {
            keys: 2 + rng.below(10),
            rotate: Duration::from_secs(2 + rng.below(6)),
            gets_percent: 20 + rng.below(60),
            deletes_percent: rng.below(15),
            pause_ms_max: 1 << rng.below(7),
            value_bytes_max: 16 << rng.below(7),
        }
    }
}

/// A raw get.
pub fn raw_get(key: Bytes) -> Ask {
    Ask::RawGet(RawGetRequest { key, ..Default::default() })
}

/// One client: operations until it is told to stop.
pub async fn raw_client(mut router: Router, knobs: RawKnobs, records: Records, mut rng: Rng) {
    let client = router.caller().client();
    let executor = router.caller().executor().clone();
    let mut count = 0u64;
    while !records.stop.get() {
        let number = rng.below(knobs.keys);
        let period = executor.now().as_millis() / knobs.rotate.as_millis();
        let key = Bytes::from(format!("k{period:04}-{number:02}"));
        count += 1;
        let dice = rng.below(100);
        let (operation, ask) = if dice < knobs.gets_percent {
            (Operation::Get, raw_get(key.clone()))
        } else if number % 2 == 1 && dice < knobs.gets_percent + knobs.deletes_percent {
            (Operation::Delete, Ask::RawDelete(RawDeleteRequest { key: key.clone(), ..Default::default() }))
        } else {
            let mut value = format!("c{client}-{count}-").into_bytes();
            value.resize(value.len() + rng.below(knobs.value_bytes_max) as usize, b'.');
            let value = Bytes::from(value);
            (
                Operation::Put(value.clone()),
                Ask::RawPut(RawPutRequest { key: key.clone(), value, ..Default::default() }),
            )
        };
        let id = records.history.borrow_mut().invoke(client, key, operation, executor.now());
        let outcome = match router.ask(ask, Duration::from_secs(5)).await {
            Asked::Told(told) => {
                records.answered.set(records.answered.get() + 1);
                Outcome::Ok(match *told {
                    Told::RawGet(answer) => Answer::Value((!answer.not_found).then_some(answer.value)),
                    _ => Answer::Done,
                })
            }
            Asked::Failed => Outcome::Failed,
            Asked::Unknown => Outcome::Unknown,
        };
        records.history.borrow_mut().complete(id, outcome, executor.now());
        executor.sleep(Duration::from_micros(1 + rng.below(knobs.pause_ms_max * 1_000))).await;
    }
    records.running.set(records.running.get() - 1);
}
