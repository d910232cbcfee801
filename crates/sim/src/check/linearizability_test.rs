use super::{CheckResult, check, check_key};
use crate::check::{wgl, zones};
use crate::history::{Answer, History, Operation, OperationId, Outcome, Record};
use bytes::Bytes;
use kontiki_env::rng::Rng;
use std::collections::BTreeSet;
use std::time::Duration;

const STEPS_MAX: u64 = 1_000_000;
const T: Duration = Duration::ZERO;

fn value(text: &str) -> Option<Bytes> {
    (!text.is_empty()).then(|| Bytes::copy_from_slice(text.as_bytes()))
}

/// A history of one key from a script. Each word is an event of a client: `1:put(a)` begins, `1:ok`, `1:=a` (a get
/// found a; `=` nothing), `1:+a` and `1:-a` (a compare-and-swap swapped or not, finding a), `1:?` and `1:x` end.
fn script(text: &str) -> Vec<Record> {
    let mut history = History::new();
    let mut running = std::collections::BTreeMap::new();
    for word in text.split_whitespace() {
        let (client, event) = word.split_once(':').unwrap();
        let (name, argument) = event.split_once('(').unwrap_or((event, ""));
        let argument = argument.trim_end_matches(')');
        let operation = match name {
            "put" => Some(Operation::Put(value(argument).unwrap())),
            "get" => Some(Operation::Get),
            "del" => Some(Operation::Delete),
            "cas" => {
                let (expected, new) = argument.split_once(',').unwrap();
                Some(Operation::CompareAndSwap { expected: value(expected), value: value(new).unwrap() })
            }
            _ => None,
        };
        if let Some(operation) = operation {
            running.insert(client, history.invoke(client.parse().unwrap(), Bytes::from("k"), operation, T));
            continue;
        }
        let outcome = match event.split_at(1) {
            ("?", _) => Outcome::Unknown,
            ("x", _) => Outcome::Failed,
            ("=", found) => Outcome::Ok(Answer::Value(value(found))),
            ("+", found) => Outcome::Ok(Answer::Swap { swapped: true, previous: value(found) }),
            ("-", found) => Outcome::Ok(Answer::Swap { swapped: false, previous: value(found) }),
            _ => Outcome::Ok(Answer::Done),
        };
        history.complete(running.remove(client).unwrap(), outcome, T);
    }
    history.records().to_vec()
}

fn is_legal(text: &str) -> bool {
    let records = script(text);
    let by_search = wgl::check(&records, STEPS_MAX);
    if zones::applies(&records) {
        let by_zones = zones::check(&records);
        assert_eq!(
            by_zones == CheckResult::Linearizable,
            by_search == CheckResult::Linearizable,
            "{text}: {by_zones:?}"
        );
    }
    assert_ne!(by_search, CheckResult::OutOfSteps);
    by_search == CheckResult::Linearizable
}

#[test]
fn registers() {
    assert!(is_legal(""));
    assert!(is_legal("1:get 1:="));
    assert!(is_legal("1:put(a) 1:ok 2:get 2:=a"));
    assert!(!is_legal("1:put(a) 1:ok 2:get 2:="), "a stale read");
    assert!(!is_legal("1:get 1:=a 1:put(a) 1:ok"), "a value from the future");
    assert!(!is_legal("1:get 1:=a"), "a value that was never written");
    assert!(is_legal("1:put(a) 2:get 3:get 2:=a 3:= 1:ok"), "concurrent reads may see either");
    assert!(!is_legal("1:put(a) 2:get 2:=a 2:get 2:= 1:ok"), "new, then old again");
    assert!(is_legal("1:put(a) 2:put(b) 1:ok 2:ok 3:get 3:=a 3:get 3:=a"));
    assert!(!is_legal("1:put(a) 2:put(b) 1:ok 2:ok 3:get 3:=a 3:get 3:=b"), "order of puts is fixed once seen");
    assert!(!is_legal("1:put(a) 1:ok 1:put(b) 1:ok 2:get 2:=a"), "a lost write");
}

#[test]
fn unknown_and_failed_outcomes() {
    assert!(is_legal("1:put(a) 1:? 2:get 2:= 2:get 2:=a"), "it may take effect late");
    assert!(is_legal("1:put(a) 1:? 2:get 2:="), "or never");
    assert!(!is_legal("1:put(a) 1:? 2:get 2:=a 2:get 2:="), "but not be undone");
    assert!(!is_legal("1:put(a) 1:x 2:get 2:=a"), "a failed write is not seen");
    assert!(is_legal("1:put(a) 1:? 2:put(b) 2:ok 2:get 2:=b 2:get 2:=a"));
    assert!(is_legal("1:get 1:? 2:put(a) 2:ok 3:get 3:x"));
    assert!(is_legal("1:put(a) 2:get 2:=a"), "still running at the end");
}

#[test]
fn deletes_and_swaps() {
    assert!(is_legal("1:put(a) 1:ok 1:del 1:ok 2:get 2:="));
    assert!(!is_legal("1:put(a) 1:ok 1:del 1:ok 2:get 2:=a"));
    assert!(is_legal("1:cas(,a) 1:+ 1:cas(a,b) 1:+a 2:get 2:=b"));
    assert!(!is_legal("1:cas(,a) 2:cas(,b) 1:+ 2:+"), "only one swaps");
    assert!(is_legal("1:cas(,a) 2:cas(,b) 1:+ 2:-a"));
    assert!(!is_legal("1:cas(,a) 1:-"), "it should have swapped");
    assert!(is_legal("1:cas(,a) 1:? 2:get 2:=a"));
    assert!(is_legal("1:cas(,a) 1:? 2:cas(,b) 2:+ 2:get 2:=b"));
    assert!(!is_legal("1:put(b) 1:ok 2:cas(a,c) 2:? 3:get 3:=c"));
    assert!(is_legal("1:del 1:? 2:put(a) 2:ok 2:get 2:=a 2:get 2:="), "an unknown delete takes effect late");
    assert!(is_legal("1:put(a) 1:ok 1:put(a) 1:ok 2:get 2:=a"), "equal values");
}

/// The parameters of a random history.
#[derive(Clone, Copy)]
struct Shape {
    clients: u64,
    operations: u64,
    conditional: bool,
    /// One answer in this many is wrong.
    lies_one_in: u64,
}

/// Runs a register with random clients whose operations take effect at a random moment of their interval.
fn random_history(rng: &mut Rng, shape: Shape) -> Vec<Record> {
    let mut history = History::new();
    let mut register: Option<Bytes> = None;
    let mut written: Vec<Option<Bytes>> = vec![None];
    // Client, id, operation, and the answer once it took effect.
    let mut running: Vec<(u64, OperationId, Operation, Option<Answer>)> = Vec::new();
    let mut left = shape.operations;
    while left > 0 || !running.is_empty() {
        let busy: BTreeSet<u64> = running.iter().map(|(client, ..)| *client).collect();
        let idle: Vec<u64> = (0..shape.clients).filter(|client| !busy.contains(client)).collect();
        if left > 0 && !idle.is_empty() && rng.chance(1, 2) {
            left -= 1;
            let new = Bytes::from(format!("{left}"));
            let operation = match rng.below(if shape.conditional { 5 } else { 3 }) {
                0 => Operation::Put(new.clone()),
                3 => Operation::Delete,
                4 => {
                    let expected =
                        if rng.chance(2, 3) { register.clone() } else { rng.pick(&written).unwrap().clone() };
                    Operation::CompareAndSwap { expected, value: new.clone() }
                }
                _ => Operation::Get,
            };
            written.push(Some(new));
            let client = *rng.pick(&idle).unwrap();
            running.push((client, history.invoke(client, Bytes::from("k"), operation.clone(), T), operation, None));
            continue;
        }
        if running.is_empty() {
            continue;
        }
        let at = rng.below(running.len() as u64) as usize;
        let (_, id, operation, answer) = &mut running[at];
        if answer.is_none() && rng.chance(9, 10) {
            *answer = Some(apply(&mut register, operation));
            continue;
        }
        let outcome = match answer.take() {
            None if rng.chance(1, 2) => Outcome::Failed,
            Some(answer) if !rng.chance(1, 10) => Outcome::Ok(lie(answer, &written, rng, shape.lies_one_in)),
            // Of an operation that did not take effect: it never will, which an unknown outcome allows.
            _ => Outcome::Unknown,
        };
        history.complete(*id, outcome, T);
        running.swap_remove(at);
    }
    history.records().to_vec()
}

fn apply(register: &mut Option<Bytes>, operation: &Operation) -> Answer {
    match operation {
        Operation::Get => Answer::Value(register.clone()),
        Operation::Put(value) => {
            *register = Some(value.clone());
            Answer::Done
        }
        Operation::Delete => {
            *register = None;
            Answer::Done
        }
        Operation::CompareAndSwap { expected, value } => {
            let previous = register.clone();
            let swapped = previous == *expected;
            if swapped {
                *register = Some(value.clone());
            }
            Answer::Swap { swapped, previous }
        }
    }
}

fn lie(answer: Answer, written: &[Option<Bytes>], rng: &mut Rng, one_in: u64) -> Answer {
    match answer {
        Answer::Value(_) if rng.chance(1, one_in) => Answer::Value(rng.pick(written).unwrap().clone()),
        answer => answer,
    }
}

#[test]
fn truthful_histories_pass() {
    let mut rng = Rng::new(1);
    for conditional in [false, true] {
        let shape = Shape { clients: 4, operations: 40, conditional, lies_one_in: u64::MAX };
        for _ in 0..1500 {
            let records = random_history(&mut rng, shape);
            assert_eq!(check_key(&records, STEPS_MAX), CheckResult::Linearizable);
            assert_eq!(wgl::check(&records, STEPS_MAX), CheckResult::Linearizable);
        }
    }
}

#[test]
fn zones_and_search_agree() {
    let mut rng = Rng::new(2);
    let mut illegal = 0;
    for number in 0..6000 {
        let shape = Shape {
            clients: 1 + rng.below(6),
            operations: 1 + rng.below(24),
            conditional: false,
            lies_one_in: 2 + rng.below(20),
        };
        let records = random_history(&mut rng, shape);
        let (by_zones, by_search) = (zones::check(&records), wgl::check(&records, STEPS_MAX));
        let legal = by_zones == CheckResult::Linearizable;
        assert_eq!(
            legal,
            by_search == CheckResult::Linearizable,
            "{number}: {by_zones:?}\n{by_search:?}\n{records:#?}"
        );
        illegal += u32::from(!legal);
    }
    assert!((1500..4500).contains(&illegal), "the mix is worth testing: {illegal} of 6000 illegal");
}

/// Tries every order of a few operations: slow and obviously correct.
fn brute_force(records: &[Record]) -> bool {
    fn place(left: &mut Vec<&Record>, register: Option<Bytes>) -> bool {
        if left.iter().all(|record| record.outcome == Outcome::Unknown) {
            return true;
        }
        for at in 0..left.len() {
            let record = left[at];
            if left.iter().any(|other| other.effective_by() < record.invoked) {
                continue;
            }
            let mut after = register.clone();
            let answer = apply(&mut after, &record.operation);
            if matches!(&record.outcome, Outcome::Ok(recorded) if *recorded != answer) {
                continue;
            }
            left.remove(at);
            let found = place(left, after);
            left.insert(at, record);
            if found {
                return true;
            }
        }
        false
    }
    place(&mut records.iter().filter(|record| record.outcome != Outcome::Failed).collect(), None)
}

#[test]
fn the_search_agrees_with_brute_force() {
    let mut rng = Rng::new(3);
    let mut illegal = 0;
    for _ in 0..3000 {
        let shape = Shape {
            clients: 1 + rng.below(4),
            operations: 1 + rng.below(7),
            conditional: true,
            lies_one_in: 2 + rng.below(4),
        };
        let records = random_history(&mut rng, shape);
        let legal = wgl::check(&records, STEPS_MAX) == CheckResult::Linearizable;
        assert_eq!(legal, brute_force(&records), "{records:#?}");
        illegal += u32::from(!legal);
    }
    assert!(illegal > 300, "the mix is worth testing: {illegal} of 3000 illegal");
}

#[test]
fn a_search_without_steps_is_not_a_pass() {
    let records = script("1:put(a) 1:ok 1:del 1:ok 2:get 2:=");
    assert_eq!(wgl::check(&records, 2), CheckResult::OutOfSteps);
}

#[test]
fn a_report_counts_keys() {
    let mut history = History::new();
    for key in ["a", "b"] {
        let key = Bytes::from(key);
        let put = history.invoke(1, key.clone(), Operation::Put(Bytes::from("1")), T);
        history.complete(put, Outcome::Ok(Answer::Done), T);
        let get = history.invoke(1, key.clone(), Operation::Get, T);
        let found = if key == "a" { value("1") } else { None };
        history.complete(get, Outcome::Ok(Answer::Value(found)), T);
    }
    let delete = history.invoke(1, Bytes::from("c"), Operation::Delete, T);
    history.complete(delete, Outcome::Ok(Answer::Done), T);
    let report = check(&history, 0);
    assert_eq!(report.keys_checked, 2);
    assert_eq!(report.keys_not_checked, ["c"]);
    let [(key, violation)] = &report.violations[..] else { panic!("one violation") };
    assert_eq!(key, "b");
    assert!(violation.to_string().contains("get -> nothing"), "{violation}");
}

#[test]
fn large_histories_of_one_key_are_quick_to_check() {
    let shape = Shape { clients: 64, operations: 50_000, conditional: false, lies_one_in: u64::MAX };
    let records = random_history(&mut Rng::new(4), shape);
    assert_eq!(check_key(&records, 0), CheckResult::Linearizable);
}
