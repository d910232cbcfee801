use super::{End, Transaction, check, check_totals};
use bytes::Bytes;
use kontiki_env::rng::Rng;
use std::collections::BTreeMap;

type Pairs<'a> = &'a [(&'static str, &'static str)];

fn pairs(pairs: Pairs) -> Vec<(Bytes, Option<Bytes>)> {
    pairs.iter().map(|(key, value)| (Bytes::from(*key), (!value.is_empty()).then(|| Bytes::from(*value)))).collect()
}

/// Begins and ends just around its timestamps. A commit timestamp of 0 means none.
fn transaction(start_ts: u64, commit_ts: u64, end: End, reads: Pairs, writes: Pairs) -> Transaction {
    Transaction {
        ended: commit_ts.max(start_ts) * 2 + 1,
        commit_ts: (commit_ts > 0).then_some(commit_ts),
        end,
        reads: pairs(reads),
        writes: pairs(writes),
        commit_began: start_ts * 2,
        ..Transaction::begun(1, start_ts * 2, start_ts)
    }
}

fn committed(start_ts: u64, commit_ts: u64, reads: Pairs, writes: Pairs) -> Transaction {
    transaction(start_ts, commit_ts, End::Committed, reads, writes)
}

/// Locks what it reads.
fn locking(start_ts: u64, commit_ts: u64, locked_reads: Pairs, writes: Pairs) -> Transaction {
    let locked_reads = pairs(locked_reads);
    Transaction { is_pessimistic: true, locked_reads, ..committed(start_ts, commit_ts, &[], writes) }
}

fn reader(start_ts: u64, reads: Pairs) -> Transaction {
    committed(start_ts, 0, reads, &[])
}

#[test]
fn a_snapshot_shows_the_newest_commit_below_it() {
    let base = [committed(1, 2, &[("a", "")], &[("a", "1")]), committed(3, 5, &[("a", "1")], &[("a", "2")])];
    let with = |reader: Transaction| check(&[&base[..], &[reader]].concat());
    assert!(with(reader(4, &[("a", "1")])).is_ok());
    assert!(with(reader(5, &[("a", "2")])).is_ok(), "a commit at the start is visible");
    assert!(with(reader(4, &[("a", "2")])).is_err(), "from the future");
    assert!(with(reader(6, &[("a", "1")])).is_err(), "stale");
    assert!(with(reader(6, &[("a", "")])).is_err(), "lost");
    assert!(with(reader(6, &[("b", "ghost")])).is_err());
}

#[test]
fn write_skew_is_allowed_and_a_lost_update_is_not() {
    let skew = [committed(1, 3, &[("a", "")], &[("b", "1")]), committed(2, 4, &[("b", "")], &[("a", "2")])];
    assert!(check(&skew).is_ok());
    let lost = [committed(1, 3, &[("a", "")], &[("a", "1")]), committed(2, 4, &[("a", "")], &[("a", "2")])];
    assert!(check(&lost).unwrap_err().what.contains("lost update"));
}

#[test]
fn a_commit_becomes_visible_whole() {
    let writer = committed(1, 2, &[], &[("a", "1"), ("b", "1")]);
    assert!(check(&[writer.clone(), reader(3, &[("a", "1"), ("b", "1")])]).is_ok());
    assert!(check(&[writer, reader(3, &[("a", "1"), ("b", "")])]).is_err());
    let unknown = transaction(1, 2, End::Unknown, &[], &[("a", "1"), ("b", "1")]);
    assert!(check(&[unknown.clone(), reader(3, &[("a", ""), ("b", "")])]).is_ok());
    assert!(check(&[unknown.clone(), reader(3, &[("a", "1"), ("b", "1")])]).is_ok());
    assert!(check(&[unknown, reader(3, &[("a", "1"), ("b", "")])]).is_err(), "seen once, it is certain");
}

#[test]
fn aborted_writes_are_never_seen() {
    let aborted = transaction(1, 2, End::Aborted, &[], &[("a", "1")]);
    assert!(check(&[aborted.clone(), reader(3, &[("a", "")])]).is_ok());
    assert!(check(&[aborted, reader(3, &[("a", "1")])]).is_err());
}

#[test]
fn deletes_are_versions() {
    let history = [committed(1, 2, &[], &[("a", "1")]), committed(3, 4, &[], &[("a", "")])];
    assert!(check(&[&history[..], &[reader(5, &[("a", "")])]].concat()).is_ok());
    assert!(check(&[&history[..], &[reader(5, &[("a", "1")])]].concat()).is_err());
}

#[test]
fn timestamps_are_sane_and_respect_real_time() {
    assert!(check(&[committed(2, 2, &[], &[("a", "1")])]).is_err());
    assert!(check(&[committed(1, 3, &[], &[("a", "1")]), committed(2, 3, &[], &[("b", "1")])]).is_ok());
    assert!(check(&[committed(1, 3, &[], &[("a", "1")]), locking(2, 3, &[], &[("a", "2")])]).is_err());
    let mut late = reader(1, &[("a", "")]);
    late.began = 100;
    late.ended = 101;
    assert!(check(&[committed(2, 3, &[], &[("a", "1")]), late]).unwrap_err().what.contains("acknowledged before"));
}

#[test]
fn commits_respect_real_time() {
    let mut late = committed(1, 2, &[], &[("b", "1")]);
    let first = committed(1, 3, &[], &[("a", "1")]);
    assert!(check(&[first.clone(), late.clone()]).is_ok(), "they overlap");
    (late.commit_began, late.ended) = (100, 101);
    assert!(check(&[first, late]).unwrap_err().what.contains("acknowledged before it was requested"));
}

#[test]
fn a_locked_read_stays_true_until_the_commit() {
    let base = [committed(1, 2, &[], &[("a", "1")]), committed(3, 5, &[], &[("a", "2")])];
    let with = |last: Transaction| check(&[&base[..], &[last]].concat());
    assert!(
        with(locking(1, 6, &[("a", "2")], &[("a", "3")])).is_ok(),
        "it began before what it has read was committed"
    );
    assert!(with(locking(1, 4, &[("a", "1")], &[])).is_ok());
    assert!(with(locking(1, 6, &[("a", "1")], &[("a", "3")])).is_err(), "a lost update");
    assert!(with(locking(1, 6, &[("a", "1")], &[])).is_err());
    let aborted = Transaction { end: End::Aborted, ..locking(1, 6, &[("a", "1")], &[]) };
    assert!(with(aborted).is_ok(), "without a commit there is no bound");
}

#[test]
fn a_bank_adds_up() {
    let amount = |value: Option<&Bytes>| value.map_or(0, |value| value.len() as i128);
    let good = reader(1, &[("a", "xxx"), ("b", "xx")]);
    let partial = reader(1, &[("a", "xxx")]);
    assert_eq!(check_totals(&[good.clone(), partial], 2, 5, amount), Ok(1));
    assert!(check_totals(&[good, reader(2, &[("a", "xx"), ("b", "xx")])], 2, 5, amount).is_err());
}

/// Runs a correct multi-version store with random transactions; `broken` makes it skip the conflict check or read
/// without regard to its start.
fn run(seed: u64, skip_conflicts: bool, read_newest: bool) -> Vec<Transaction> {
    let mut rng = Rng::new(seed);
    let mut store: BTreeMap<(Bytes, u64), Bytes> = BTreeMap::new();
    let newest = |store: &BTreeMap<(Bytes, u64), Bytes>, key: &Bytes, ts: u64| {
        store.range((key.clone(), 0)..=(key.clone(), ts)).next_back().map(|((_, ts), value)| (*ts, value.clone()))
    };
    let (mut open, mut done, mut clock) = (Vec::<Transaction>::new(), Vec::new(), 0);
    for number in 0..60 {
        clock += 1;
        if open.len() < 3 || rng.chance(1, 2) {
            let mut begun = committed(clock, 0, &[], &[]);
            begun.client = number;
            open.push(begun);
        }
        let at = rng.below(open.len() as u64) as usize;
        let key = Bytes::from(format!("k{}", rng.below(3)));
        let ts = if read_newest { u64::MAX } else { open[at].start_ts };
        if !open[at].reads.iter().any(|(read, _)| *read == key) {
            let found = newest(&store, &key, ts).map(|(_, value)| value);
            open[at].reads.push((key, found));
        }
        if rng.chance(1, 2) {
            let mut transaction = open.swap_remove(at);
            clock += 1;
            let write = Bytes::from(format!("k{}", rng.below(3)));
            transaction.commit_began = clock * 2;
            let conflict = newest(&store, &write, u64::MAX).is_some_and(|(ts, _)| ts > transaction.start_ts);
            transaction.end = if conflict && !skip_conflicts { End::Aborted } else { End::Committed };
            let value = Bytes::from(format!("v{number}"));
            if transaction.end == End::Committed {
                store.insert((write.clone(), clock), value.clone());
            }
            transaction.commit_ts = Some(clock);
            transaction.ended = clock * 2 + 1;
            transaction.writes.push((write, Some(value)));
            if rng.chance(1, 5) {
                transaction.end = if transaction.end == End::Aborted { End::Aborted } else { End::Unknown };
            }
            done.push(transaction);
        }
    }
    done
}

#[test]
fn a_correct_store_passes_and_broken_ones_are_found() {
    let (mut lost_updates, mut wrong_reads) = (0, 0);
    for seed in 0..300 {
        check(&run(seed, false, false)).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        lost_updates += u32::from(check(&run(seed, true, false)).is_err());
        wrong_reads += u32::from(check(&run(seed, false, true)).is_err());
    }
    assert!(lost_updates > 250 && wrong_reads > 250, "{lost_updates} and {wrong_reads} of 300");
}
