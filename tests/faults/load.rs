//! Clients whose answers are recorded: registers, for the check of linearizability, and a bank, whose total is constant
//! in every snapshot.

use bytes::Bytes;
use kontiki::client::{Client, Error};
use kontiki_env::rng::Rng;
use kontiki_sim::history::{Answer, History, Operation, Outcome};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const SLOTS: u64 = 12;
pub const ACCOUNTS: u64 = 8;
const OPENING_BALANCE: i64 = 100;
/// Operations after which a slot goes on with a new key: the check of a key takes time that grows with its history.
const KEY_OPERATIONS: u64 = 400;
/// Between two operations of a client, at most: otherwise a long run has more history than memory.
const PAUSE_MAX_US: u64 = 20_000;

/// What all clients and the test share.
pub struct Shared {
    began: Instant,
    stop: AtomicBool,
    history: Mutex<History>,
    pub answered: AtomicU64,
    pub transfers: AtomicU64,
    pub snapshots: AtomicU64,
    operations: [AtomicU64; SLOTS as usize],
    unique: AtomicU64,
}

impl Shared {
    pub fn new() -> Arc<Shared> {
        Arc::new(Shared {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            history: Mutex::default(),
            answered: AtomicU64::new(0),
            transfers: AtomicU64::new(0),
            snapshots: AtomicU64::new(0),
            operations: std::array::from_fn(|_| AtomicU64::new(0)),
            unique: AtomicU64::new(0),
        })
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub fn take_history(&self) -> History {
        std::mem::take(&mut self.history.lock())
    }

    fn runs(&self) -> bool {
        !self.stop.load(Ordering::Acquire)
    }

    /// The present key of a slot. Slots lie in different regions: their first letters differ.
    fn key(&self, slot: u64) -> Bytes {
        let count = self.operations[slot as usize].fetch_add(1, Ordering::AcqRel);
        format!("{}register/{:06}", slot_prefix(slot), count / KEY_OPERATIONS).into()
    }
}

pub fn slot_prefix(slot: u64) -> char {
    char::from(b'a' + slot as u8)
}

pub fn account(number: u64) -> String {
    format!("bank/{number:03}")
}

/// How a failed operation ended: what the client calls a timeout has not taken effect and never will.
fn outcome_of(error: &Error) -> Outcome {
    match error {
        Error::Timeout { .. } => Outcome::Failed,
        Error::Undetermined { .. } => Outcome::Unknown,
        other => panic!("no fault of a node is a reason for {other:?}"),
    }
}

async fn operate(client: &Client, key: Bytes, operation: Operation) -> Outcome {
    let raw = client.raw();
    let answer = match operation {
        Operation::Put(value) => raw.put(key, value).await.map(|()| Answer::Done),
        Operation::Delete => raw.delete(key).await.map(|()| Answer::Done),
        Operation::Get => raw.get(key).await.map(Answer::Value),
        Operation::CompareAndSwap { .. } => unreachable!("not drawn"),
    };
    answer.map_or_else(|error| outcome_of(&error), Outcome::Ok)
}

/// One client of registers.
pub async fn use_registers(shared: Arc<Shared>, client: Client, number: u64, mut rng: Rng) {
    while shared.runs() {
        let slot = rng.below(SLOTS);
        let key = shared.key(slot);
        let operation = match rng.below(10) {
            0..5 => Operation::Get,
            // Without deletes the check is exact and fast; a third of the registers has them.
            5 if slot.is_multiple_of(3) => Operation::Delete,
            _ => Operation::Put(format!("{}", shared.unique.fetch_add(1, Ordering::AcqRel)).into()),
        };
        let invoked = shared.history.lock().invoke(number, key.clone(), operation.clone(), shared.began.elapsed());
        let outcome = operate(&client, key, operation).await;
        if matches!(outcome, Outcome::Ok(_)) {
            shared.answered.fetch_add(1, Ordering::AcqRel);
        }
        shared.history.lock().complete(invoked, outcome, shared.began.elapsed());
        tokio::time::sleep(Duration::from_micros(rng.below(PAUSE_MAX_US))).await;
    }
}

pub async fn open_accounts(client: &Client) -> Result<(), Error> {
    let mut opening = client.begin().await?;
    for number in 0..ACCOUNTS {
        opening.put(account(number), OPENING_BALANCE.to_string());
    }
    opening.commit().await.map(drop)
}

fn balance(value: Option<&[u8]>) -> i64 {
    std::str::from_utf8(value.expect("an account")).expect("text").parse().expect("a number")
}

async fn transfer(client: &Client, from: u64, to: u64, amount: i64) -> Result<(), Error> {
    let mut transaction = client.begin().await?;
    let source = balance(transaction.get(account(from)).await?.as_deref());
    let target = balance(transaction.get(account(to)).await?.as_deref());
    transaction.put(account(from), (source - amount).to_string());
    transaction.put(account(to), (target + amount).to_string());
    transaction.commit().await.map(drop)
}

/// The sum over one snapshot of all accounts; they lie in several regions.
pub async fn check_total(client: &Client) -> Result<(), Error> {
    let transaction = client.begin().await?;
    let pairs = transaction.scan(account(0), account(ACCOUNTS), ACCOUNTS as usize + 1).await?;
    assert_eq!(pairs.len() as u64, ACCOUNTS, "every account is in every snapshot: {pairs:?}");
    let total: i64 = pairs.iter().map(|pair| balance(Some(&pair.value))).sum();
    assert_eq!(total, ACCOUNTS as i64 * OPENING_BALANCE, "the total has changed at {}", transaction.start_timestamp());
    Ok(())
}

/// One teller: transfers, each followed by a snapshot of all accounts. Their errors are of no interest: whether a
/// transfer took effect or not, the total is the same.
pub async fn transfer_all_day(shared: Arc<Shared>, client: Client, mut rng: Rng) {
    while shared.runs() {
        let from = rng.below(ACCOUNTS);
        let to = (from + 1 + rng.below(ACCOUNTS - 1)) % ACCOUNTS;
        if transfer(&client, from, to, rng.below(10) as i64).await.is_ok() {
            shared.transfers.fetch_add(1, Ordering::AcqRel);
        }
        if check_total(&client).await.is_ok() {
            shared.snapshots.fetch_add(1, Ordering::AcqRel);
        }
        tokio::time::sleep(Duration::from_micros(rng.below(PAUSE_MAX_US))).await;
    }
}
