//! Step-by-step tests: text files in tests/scripts, each named for a situation, with commands and what they must answer
//! and change. The commands run through the scheduler, over a store in a map.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p kontiki-txn script` writes the expected output anew. Read the difference.
#![allow(clippy::disallowed_methods, reason = "the scripts are files of the repository")]

use crate::script_text_test::{
    bytes, describe_failure, describe_lock, describe_locked, describe_state, describe_status, describe_version,
    key_list, timestamp, ts,
};
use crate::testing::{MapStore, TestError, ready, surroundings};
use crate::*;
use ::bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use futures::task::noop_waker;
use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use kontiki_engine::{Range, WriteBatch};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

type Answer = std::result::Result<String, Failure<TestError>>;

/// What happens to the next write.
#[derive(Clone, Copy, Default)]
enum NextWrite {
    #[default]
    Succeeds,
    /// It is refused, without effect.
    Refused,
    /// It has no effect, and the caller does not learn that.
    Lost,
    /// It takes effect, and the caller does not learn that.
    Unknown,
}

/// A store without delays.
#[derive(Default)]
struct Direct {
    store: Mutex<MapStore>,
    next: Mutex<NextWrite>,
    term: AtomicU64,
    /// What the oracle says; 0: nothing.
    oracle: AtomicU64,
}

impl Replicated for Direct {
    type Context = ();
    type Error = TestError;
    type View = MapStore;

    async fn view(&self, (): &()) -> std::result::Result<MapStore, TestError> {
        Ok(self.store.lock().clone())
    }

    fn leadership(&self, (): &()) -> Option<Leadership> {
        Some(Leadership { region: 1, term: self.term.load(Ordering::SeqCst), version: 1 })
    }

    async fn timestamp(&self) -> std::result::Result<TimeStamp, TestError> {
        match self.oracle.load(Ordering::SeqCst) {
            0 => Err(TestError::Refused),
            ts => Ok(TimeStamp(ts)),
        }
    }

    async fn replicate(&self, (): &(), batch: WriteBatch) -> std::result::Result<(), TestError> {
        let outcome = std::mem::take(&mut *self.next.lock());
        if matches!(outcome, NextWrite::Succeeds | NextWrite::Unknown) {
            self.store.lock().apply(&batch);
        }
        match outcome {
            NextWrite::Succeeds => Ok(()),
            NextWrite::Refused => Err(TestError::Refused),
            NextWrite::Lost | NextWrite::Unknown => Err(TestError::Undetermined),
        }
    }
}

struct Script {
    scheduler: Scheduler<Direct>,
    /// Requests that wait, in the order of their beginning; and those that were begun.
    waiting: Vec<(u64, BoxFuture<'static, String>)>,
    waited: u64,
    /// Ends all waits when it is dropped.
    time: Arc<Mutex<Vec<oneshot::Sender<()>>>>,
}

impl Script {
    fn new() -> Script {
        let detach: Detach = Arc::new(|_| panic!("no caller gives up in a script"));
        let time: Arc<Mutex<Vec<oneshot::Sender<()>>>> = Arc::default();
        let timers = time.clone();
        let sleep = move |_| -> BoxFuture<'static, ()> {
            let (end, ended) = oneshot::channel();
            timers.lock().push(end);
            Box::pin(ended.map(|_| ()))
        };
        let direct = Direct { oracle: AtomicU64::new(1), ..Direct::default() };
        let scheduler = Scheduler::new(direct, surroundings(detach, sleep));
        Script { scheduler, waiting: Vec::new(), waited: 0, time }
    }

    /// Polls what waits; a line for each that ended.
    fn ended(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let (waker, before) = (noop_waker(), lines.len());
            let mut poll = std::task::Context::from_waker(&waker);
            self.waiting.retain_mut(|(number, request)| match request.poll_unpin(&mut poll) {
                Poll::Ready(answer) => {
                    lines.push(format!("request {number}: {answer}"));
                    false
                }
                Poll::Pending => true,
            });
            if lines.len() == before {
                return lines;
            }
        }
    }

    fn state(&self) -> Vec<String> {
        describe_state(&self.scheduler.replicated().store.lock())
    }
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> std::result::Result<String, Box<dyn Error>> {
        let before = self.state();
        let mut arguments = command.consume_args();
        let answer = self.execute(&command.name, &mut arguments)?;
        arguments.reject_next()?;
        let mut output = match answer {
            Ok(text) => text,
            Err(failure) => format!("error: {}", describe_failure(&failure)),
        };
        output.push('\n');
        for line in self.ended() {
            writeln!(output, "{line}")?;
        }
        // What the command changed in the families.
        let after = self.state();
        for line in before.iter().filter(|line| !after.contains(line)) {
            writeln!(output, "  - {line}")?;
        }
        for line in after.iter().filter(|line| !before.contains(line)) {
            writeln!(output, "  + {line}")?;
        }
        Ok(output)
    }
}

/// A timestamp that must be there.
fn next_timestamp(arguments: &mut ArgumentConsumer<'_>) -> std::result::Result<TimeStamp, Box<dyn Error>> {
    timestamp(arguments.next_pos().ok_or("a timestamp is missing")?)
}

fn next_key(arguments: &mut ArgumentConsumer<'_>) -> std::result::Result<Bytes, Box<dyn Error>> {
    Ok(bytes(arguments.next_pos().ok_or("a key is missing")?))
}

/// All further positional arguments.
fn rest(arguments: &mut ArgumentConsumer<'_>) -> Vec<String> {
    std::iter::from_fn(|| arguments.next_pos()).map(str::to_owned).collect()
}

fn rest_keys(arguments: &mut ArgumentConsumer<'_>) -> Vec<Bytes> {
    rest(arguments).iter().map(|key| bytes(key)).collect()
}

fn timestamp_of(arguments: &mut ArgumentConsumer<'_>, name: &str) -> std::result::Result<TimeStamp, Box<dyn Error>> {
    arguments.take_key(name).map_or(Ok(TimeStamp::ZERO), timestamp)
}

fn number_of(
    arguments: &mut ArgumentConsumer<'_>,
    name: &str,
    otherwise: u64,
) -> std::result::Result<u64, Box<dyn Error>> {
    Ok(arguments.take_key(name).map(str::parse).transpose()?.unwrap_or(otherwise))
}

/// Removes a flag from the list.
fn flag(flags: &mut Vec<String>, name: &str) -> bool {
    let before = flags.len();
    flags.retain(|flag| flag != name);
    flags.len() < before
}

fn none_left(flags: &[String]) -> std::result::Result<(), Box<dyn Error>> {
    if flags.is_empty() { Ok(()) } else { Err(format!("unknown: {flags:?}").into()) }
}

impl Script {
    fn execute(
        &mut self,
        name: &str,
        arguments: &mut ArgumentConsumer<'_>,
    ) -> std::result::Result<Answer, Box<dyn Error>> {
        Ok(match name {
            "prewrite" => self.prewrite(arguments)?,
            "commit" => {
                let (start_ts, commit_ts) = (next_timestamp(arguments)?, next_timestamp(arguments)?);
                let command = Commit { keys: rest_keys(arguments), start_ts, commit_ts };
                ready(self.scheduler.commit(&(), command)).map(|commit_ts| format!("committed at {}", ts(commit_ts)))
            }
            "lock" => self.lock(arguments)?,
            "pessimistic_rollback" => {
                let (start_ts, for_update_ts) = (next_timestamp(arguments)?, timestamp_of(arguments, "for_update_ts")?);
                let command = PessimisticRollback { start_ts, for_update_ts, keys: rest_keys(arguments) };
                ready(self.scheduler.pessimistic_rollback(&(), command)).map(|()| "ok".to_owned())
            }
            "time_passes" => {
                self.time.lock().clear();
                Ok("waits end".to_owned())
            }
            // Another leader has served reads in between, of which this node knows nothing.
            "new_leader" => {
                let direct = self.scheduler.replicated();
                direct.term.fetch_add(1, Ordering::SeqCst);
                direct.oracle.store(timestamp_of(arguments, "oracle")?.0, Ordering::SeqCst);
                Ok("a new term begins".to_owned())
            }
            "oracle" => {
                let says = next_timestamp(arguments)?;
                self.scheduler.replicated().oracle.store(says.0, Ordering::SeqCst);
                Ok("ok".to_owned())
            }
            "max_ts" => Ok(ts(self.scheduler.concurrency().max_ts())),
            "rollback" => {
                let command = BatchRollback { start_ts: next_timestamp(arguments)?, keys: rest_keys(arguments) };
                ready(self.scheduler.batch_rollback(&(), command)).map(|()| "ok".to_owned())
            }
            "cleanup" => {
                let (start_ts, key) = (next_timestamp(arguments)?, next_key(arguments)?);
                let command = Cleanup { key, start_ts, current_ts: timestamp_of(arguments, "now")? };
                ready(self.scheduler.cleanup(&(), command)).map(|commit_ts| match commit_ts.is_zero() {
                    true => "rolled back".to_owned(),
                    false => format!("committed at {}", ts(commit_ts)),
                })
            }
            "heartbeat" => {
                let (start_ts, primary) = (next_timestamp(arguments)?, next_key(arguments)?);
                let command = TxnHeartBeat { primary, start_ts, advise_ttl_ms: number_of(arguments, "ttl", 0)? };
                ready(self.scheduler.txn_heart_beat(&(), command)).map(|ttl| format!("time to live {ttl} ms"))
            }
            "check_status" => self.check_status(arguments)?,
            "check_secondaries" => {
                let command = CheckSecondaryLocks { start_ts: next_timestamp(arguments)?, keys: rest_keys(arguments) };
                ready(self.scheduler.check_secondary_locks(&(), command)).map(|status| match status {
                    SecondaryStatus::Locked(locks) => format!("{} keys are locked", locks.len()),
                    SecondaryStatus::Committed(commit_ts) => format!("committed at {}", ts(commit_ts)),
                    SecondaryStatus::RolledBack => "rolled back".to_owned(),
                })
            }
            "resolve" => self.resolve(arguments)?,
            "get" | "batch_get" | "scan" | "scan_locks" => self.read(name, arguments)?,
            "place_lock" => self.place_lock(arguments)?,
            "fail_next_write" => {
                *self.scheduler.replicated().next.lock() = match arguments.next_pos() {
                    Some("refused") => NextWrite::Refused,
                    Some("lost") => NextWrite::Lost,
                    Some("unknown") => NextWrite::Unknown,
                    other => return Err(format!("no such failure: {other:?}").into()),
                };
                Ok("the next write will fail".to_owned())
            }
            "physical_keys" => Ok(crate::script_text_test::describe_physical(&rest_keys(arguments))),
            "state" => Ok(match self.state().join("\n") {
                empty if empty.is_empty() => "nothing".to_owned(),
                lines => lines,
            }),
            other => return Err(format!("no such command: {other}").into()),
        })
    }

    fn prewrite(&mut self, arguments: &mut ArgumentConsumer<'_>) -> std::result::Result<Answer, Box<dyn Error>> {
        let start_ts = next_timestamp(arguments)?;
        let exist = arguments.take_key("assert_exists").map(key_list).unwrap_or_default();
        let absent = arguments.take_key("assert_absent").map(key_list).unwrap_or_default();
        let asserted = !exist.is_empty() || !absent.is_empty();
        let assertion = |key: &Bytes| match (exist.contains(key), absent.contains(key)) {
            (true, _) => Assertion::Exist,
            (_, true) => Assertion::NotExist,
            _ => Assertion::None,
        };
        let primary = arguments.take_key("primary").map(bytes);
        let held = arguments.take_key("held").map(key_list).unwrap_or_default();
        let checked = arguments.take_key("checked").map(key_list).unwrap_or_default();
        let pessimistic = |key: &Bytes| match (held.contains(key), checked.contains(key)) {
            (true, _) => PessimisticAction::CheckLock,
            (_, true) => PessimisticAction::CheckConflict,
            _ => PessimisticAction::Skip,
        };
        let expected = arguments.take_key("expected_for_update_ts").map(timestamp).transpose()?;
        let mut command = Prewrite {
            mutations: Vec::new(),
            primary: Bytes::new(),
            start_ts,
            ttl_ms: number_of(arguments, "ttl", 3000)?,
            txn_size: 0,
            min_commit_ts: timestamp_of(arguments, "min_commit_ts")?,
            for_update_ts: timestamp_of(arguments, "for_update_ts")?,
            assertion_level: if asserted { AssertionLevel::Strict } else { AssertionLevel::Off },
            use_async_commit: arguments.take_key("async_commit").is_some(),
            secondaries: arguments.take_key("secondaries").map(key_list).unwrap_or_default(),
            try_one_pc: arguments.take_key("one_phase").is_some(),
            max_commit_ts: timestamp_of(arguments, "max_commit_ts")?,
        };
        for argument in arguments.by_ref() {
            let (text, value) = match argument {
                goldenscript::Argument::Positional(text) => (text, ""),
                goldenscript::Argument::KeyValue(text, value) => (text, value.as_str()),
                _ => return Err("an unknown argument".into()),
            };
            let (op, key) = text.split_once('/').ok_or(format!("{text} is not operation/key"))?;
            let op = match op {
                "put" => MutationOp::Put(bytes(value)),
                "put_bytes" => MutationOp::Put(vec![b'x'; value.parse()?].into()),
                "delete" => MutationOp::Delete,
                "lock" => MutationOp::Lock,
                "insert" => MutationOp::Insert(bytes(value)),
                "check_not_exists" => MutationOp::CheckNotExists,
                other => return Err(format!("no such operation: {other}").into()),
            };
            let key = bytes(key);
            let (assertion, pessimistic) = (assertion(&key), pessimistic(&key));
            let expected_for_update_ts = expected.filter(|_| pessimistic == PessimisticAction::CheckLock);
            command.mutations.push(Mutation { key, op, assertion, pessimistic, expected_for_update_ts });
        }
        let first = command.mutations.first().ok_or("a prewrite of no key")?.key.clone();
        command.primary = primary.unwrap_or(first);
        command.txn_size = command.mutations.len() as u64;
        Ok(ready(self.scheduler.prewrite(&(), command)).map(|answer| match answer {
            Prewritten { one_pc_commit_ts: TimeStamp::ZERO, min_commit_ts: TimeStamp::ZERO } => "ok".to_owned(),
            Prewritten { one_pc_commit_ts: TimeStamp::ZERO, min_commit_ts } => {
                format!("ok, with async commit at or above {}", ts(min_commit_ts))
            }
            Prewritten { one_pc_commit_ts, .. } => format!("committed in one phase at {}", ts(one_pc_commit_ts)),
        }))
    }

    /// `lock 10 a b for_update_ts=12 primary=a values existence only_if_exists force wait absent=b`
    fn lock(&mut self, arguments: &mut ArgumentConsumer<'_>) -> std::result::Result<Answer, Box<dyn Error>> {
        let start_ts = next_timestamp(arguments)?;
        let absent = arguments.take_key("absent").map(key_list).unwrap_or_default();
        let primary = arguments.take_key("primary").map(bytes);
        let for_update_ts = arguments.take_key("for_update_ts").map_or(Ok(start_ts), timestamp)?;
        let (ttl_ms, min_commit_ts) = (number_of(arguments, "ttl", 3000)?, timestamp_of(arguments, "min_commit_ts")?);
        let mut words = rest(arguments);
        let waits = flag(&mut words, "wait").then_some(LOCK_WAIT_MAX);
        let (return_values, check_existence) = (flag(&mut words, "values"), flag(&mut words, "existence"));
        let (lock_only_if_exists, allow_conflict) = (flag(&mut words, "only_if_exists"), flag(&mut words, "force"));
        let keys: Vec<KeyToLock> = words
            .iter()
            .map(|key| bytes(key))
            .map(|key| KeyToLock { must_not_exist: absent.contains(&key), key })
            .collect();
        let primary = primary.or(keys.first().map(|key| key.key.clone())).ok_or("a key is missing")?;
        let command = PessimisticLock {
            keys,
            primary,
            start_ts,
            ttl_ms,
            for_update_ts,
            min_commit_ts,
            return_values,
            check_existence,
            lock_only_if_exists,
            allow_conflict,
        };
        let scheduler = self.scheduler.clone();
        let names: Vec<Bytes> = command.keys.iter().map(|key| key.key.clone()).collect();
        let mut request = Box::pin(async move {
            match scheduler.pessimistic_lock(&(), command, waits).await {
                Ok(locked) => describe_locked(&names, &locked),
                Err(failure) => format!("error: {}", describe_failure(&failure)),
            }
        });
        if let Some(answer) = request.as_mut().now_or_never() {
            return Ok(Ok(answer));
        }
        self.waited += 1;
        self.waiting.push((self.waited, request));
        Ok(Ok(format!("request {} waits", self.waited)))
    }

    fn check_status(&mut self, arguments: &mut ArgumentConsumer<'_>) -> std::result::Result<Answer, Box<dyn Error>> {
        let (start_ts, primary) = (next_timestamp(arguments)?, next_key(arguments)?);
        let (caller_start_ts, current_ts) = (timestamp_of(arguments, "caller")?, timestamp_of(arguments, "now")?);
        let mut flags = rest(arguments);
        let command = CheckTxnStatus {
            primary,
            start_ts,
            caller_start_ts,
            current_ts,
            rollback_if_not_exist: flag(&mut flags, "rollback_if_not_exist"),
            force_sync_commit: flag(&mut flags, "force_sync_commit"),
            resolving_pessimistic_lock: flag(&mut flags, "resolving_pessimistic_lock"),
            verify_is_primary: flag(&mut flags, "verify_is_primary"),
        };
        none_left(&flags)?;
        Ok(ready(self.scheduler.check_txn_status(&(), command)).map(|status| describe_status(&status)))
    }

    fn resolve(&mut self, arguments: &mut ArgumentConsumer<'_>) -> std::result::Result<Answer, Box<dyn Error>> {
        let keys = arguments.take_key("keys").map(key_list).unwrap_or_default();
        let region = range(arguments);
        let mut txns = BTreeMap::new();
        while let Some((start_ts, outcome)) = arguments.next_key() {
            let commit_ts = if outcome == "rollback" { TimeStamp::ZERO } else { timestamp(outcome)? };
            txns.insert(timestamp(start_ts)?, commit_ts);
        }
        let command = ResolveLock { txns, keys };
        Ok(ready(self.scheduler.resolve_lock(&(), &region, command, &mut NoYield)).map(|()| "ok".to_owned()))
    }

    fn read(
        &mut self,
        name: &str,
        arguments: &mut ArgumentConsumer<'_>,
    ) -> std::result::Result<Answer, Box<dyn Error>> {
        let ts = next_timestamp(arguments)?;
        let (range, limit) = (range(arguments), number_of(arguments, "limit", 100)? as usize);
        let options = ReadOptions {
            resolved_locks: timestamps(arguments, "bypass")?,
            committed_locks: timestamps(arguments, "committed")?,
            ..ReadOptions::at(ts)
        };
        let mut words = rest(arguments);
        let committed_only = flag(&mut words, "read_committed");
        let isolation = if committed_only { Isolation::ReadCommitted } else { Isolation::Snapshot };
        let options = ReadOptions { isolation, ..options };
        let scheduler = &self.scheduler;
        let answer = match name {
            "get" => {
                let key = words.pop().ok_or("a key is missing")?;
                ready(scheduler.get(&(), &bytes(&key), &options))
                    .map(|version| version.as_ref().map_or("not found".to_owned(), describe_version))
            }
            "batch_get" => {
                let keys: Vec<Bytes> = words.drain(..).map(|key| bytes(&key)).collect();
                ready(scheduler.batch_get(&(), &keys, &options, &mut NoYield)).map(|pairs| describe_pairs(&pairs))
            }
            "scan" => {
                let (reverse, key_only) = (flag(&mut words, "reverse"), flag(&mut words, "key_only"));
                let scan = Scan { range, limit, key_only, reverse };
                ready(scheduler.scan(&(), &scan, &options, &mut NoYield)).map(|pairs| describe_pairs(&pairs))
            }
            _ => {
                let scan = ScanLock { range, max_version: ts, limit };
                ready(scheduler.scan_lock(&(), &scan, &mut NoYield)).map(|locks| lines(locks.iter().map(describe_lock)))
            }
        };
        none_left(&words)?;
        Ok(answer)
    }

    /// Writes a lock that no command of this version makes, as another version may have left it.
    fn place_lock(&mut self, arguments: &mut ArgumentConsumer<'_>) -> std::result::Result<Answer, Box<dyn Error>> {
        let (start_ts, key) = (next_timestamp(arguments)?, next_key(arguments)?);
        let secondaries: Vec<Bytes> = arguments.take_key("secondaries").map(key_list).unwrap_or_default();
        let mut flags = rest(arguments);
        let lock = Lock {
            kind: if flag(&mut flags, "pessimistic") { LockKind::Pessimistic } else { LockKind::Put },
            start_ts,
            primary: arguments.take_key("primary").map_or(key.clone(), bytes),
            ttl_ms: number_of(arguments, "ttl", 3000)?,
            short_value: arguments.take_key("value").map(bytes),
            for_update_ts: timestamp_of(arguments, "for_update_ts")?,
            min_commit_ts: timestamp_of(arguments, "min_commit_ts")?,
            txn_size: 1,
            use_async_commit: flag(&mut flags, "async_commit"),
            secondaries,
        };
        none_left(&flags)?;
        self.scheduler.replicated().store.lock().put_raw(TXN_LOCK, lock_key(&key), &lock.encode());
        Ok(Ok("ok".to_owned()))
    }
}

/// `from=a to=d`, either may be absent.
fn range(arguments: &mut ArgumentConsumer<'_>) -> Range {
    let mut bound = |name| arguments.take_key(name).map(bytes).unwrap_or_default();
    user_range(&Range::all(), &bound("from"), &bound("to"))
}

fn timestamps(
    arguments: &mut ArgumentConsumer<'_>,
    name: &str,
) -> std::result::Result<BTreeSet<TimeStamp>, Box<dyn Error>> {
    arguments.take_key(name).map_or(Ok(BTreeSet::new()), |list| list.split('.').map(timestamp).collect())
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") }
}

fn describe_pairs(pairs: &[Pair]) -> String {
    lines(pairs.iter().map(|pair| match &pair.outcome {
        Ok(version) => format!("{}: {}", pair.key.escape_ascii(), describe_version(version)),
        Err(lock) => format!("{}: blocked by {}", pair.key.escape_ascii(), describe_lock(lock)),
    }))
}

/// The scripts' paths.
fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let found: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(found.len() >= 20, "only {} scripts were found", found.len());
    found
}

#[test]
fn every_script_answers_and_changes_what_it_says() {
    for path in scripts() {
        println!("{}", path.display());
        goldenscript::run(&mut Script::new(), &path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// The scripts can fail: each of these bugs changes what some script prints, or makes it panic.
#[test]
fn scripts_find_planted_bugs() {
    use planted::Bug;
    let bugs = [
        Bug::RollBackWithoutRecord,
        Bug::PrewriteAfterRollback,
        Bug::MissNewerCommits,
        Bug::CommitBelowMinimum,
        Bug::ReadPastLocks,
        Bug::LeaveLongValue,
        Bug::PushInAnswerOnly,
        Bug::OmitLockedKeys,
    ];
    for bug in bugs {
        planted::set(Some(bug));
        let found = scripts().iter().any(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let output = std::panic::catch_unwind(|| goldenscript::generate(&mut Script::new(), &text));
            !matches!(output, Ok(Ok(output)) if output == text)
        });
        planted::set(None);
        assert!(found, "no script finds {bug:?}");
    }
}
