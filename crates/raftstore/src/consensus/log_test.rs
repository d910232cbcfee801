use super::*;
use proptest::prelude::*;

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, data: vec![b'd'; (index % 7) as usize].into(), ..Entry::default() }
}

/// A log of 20 entries after position (2, 1), of which those through 12 are applied and so evicted.
fn log() -> EntryLog {
    let entries: Vec<Entry> = (3..23).map(|index| entry(index, 1 + index / 5)).collect();
    let start = Position { index: 2, term: 1 };
    let mut log = EntryLog::new(start, entries.into(), 12, HardState::default(), ConfState::default());
    log.evict(12, usize::MAX);
    log
}

fn appends(log: &EntryLog, low: u64, bytes_max: u64) -> raft::Result<Vec<u64>> {
    let found = log.entries(low, log.last() + 1, bytes_max, GetEntriesContext::empty(true))?;
    Ok(found.into_iter().map(|entry| entry.index).collect())
}

const LATER: raft::Error = raft::Error::Store(StorageError::LogTemporarilyUnavailable);

#[test]
fn an_append_that_begins_with_an_evicted_entry_waits_for_it() {
    let mut log = log();
    assert_eq!(appends(&log, 9, 1000), Err(LATER));
    assert_eq!(appends(&log, 9, 1000), Err(LATER));
    assert_eq!(appends(&log, 5, 1000), Err(LATER));
    assert_eq!(log.take_wanted().into_iter().collect::<Vec<_>>(), [5, 9]);
    assert!(log.take_wanted().is_empty(), "they are noted once");
    let (indices, bytes) = log.evicted_from(9, 1 << 20).expect("it is evicted");
    assert_eq!((indices, bytes), (9..13, (9..13).map(|index| entry_bytes(&entry(index, 0))).sum()));
    log.set_fetched((9..12).map(|index| entry(index, 1 + index / 5)).collect());
    assert_eq!(appends(&log, 9, 1000), Ok(vec![9, 10, 11]));
    assert_eq!(appends(&log, 10, 1), Ok(vec![10]), "at least one");
    assert_eq!(appends(&log, 12, 1000), Err(LATER), "it was not read");
    assert_eq!(appends(&log, 8, 1000), Err(LATER));
    log.set_fetched(Vec::new());
    assert_eq!(appends(&log, 9, 1000), Err(LATER), "what was fetched is forgotten");
    assert_eq!(appends(&log, 20, 1000), Ok(vec![20, 21, 22]), "the others are in memory");
}

#[test]
fn a_read_is_of_at_least_one_entry_and_of_evicted_ones_only() {
    let log = log();
    assert_eq!(log.evicted_from(4, 0).map(|(indices, _)| indices), Some(4..5));
    assert_eq!(log.evicted_from(4, 140).map(|(indices, _)| indices), Some(4..6));
    assert_eq!(log.evicted_from(12, usize::MAX).map(|(indices, _)| indices), Some(12..13));
    assert_eq!(log.evicted_from(13, 1000), None);
    assert_eq!(log.evicted_from(2, 1000), None, "it is truncated");
}

#[test]
fn appends_end_with_their_allowance() {
    let log = log();
    log.set_allowance(70);
    assert_eq!(appends(&log, 14, 140), Ok(vec![14, 15]), "what it begins within, it may exceed");
    assert_eq!(appends(&log, 16, 140), Err(LATER));
    assert_eq!((log.take_delayed(), log.take_delayed()), (1, 0));
    assert!(log.take_wanted().is_empty(), "nothing has to be read for it");
    let others = log.entries(14, 15, None, GetEntriesContext::empty(false));
    assert_eq!(others.expect("it is no append").len(), 1);
}

/// One step of a log's life.
#[derive(Clone, Debug)]
enum Step {
    Append(u64, u64),
    Replace(u64),
    Apply(u64),
    Evict(u64, usize),
    Truncate(u64),
    Restore(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u64..6, 0u64..2).prop_map(|(count, terms)| Step::Append(count, terms)),
        1 => (1u64..6).prop_map(Step::Replace),
        4 => (1u64..8).prop_map(Step::Apply),
        3 => (0u64..12, 0usize..30).prop_map(|(index, bytes)| Step::Evict(index, bytes)),
        2 => (0u64..8).prop_map(Step::Truncate),
        1 => (0u64..4).prop_map(Step::Restore),
    ];
    prop::collection::vec(step, 1..80)
}

/// What a log holds, without eviction.
#[derive(Default)]
struct Model {
    truncated: Position,
    entries: Vec<Entry>,
    applied: u64,
}

impl Model {
    fn last(&self) -> Position {
        let position = |entry: &Entry| Position { index: entry.index, term: entry.term };
        self.entries.last().map_or(self.truncated, position)
    }

    fn step(&mut self, step: Step, log: &mut EntryLog) {
        let last = self.last();
        match step {
            Step::Append(count, terms) => {
                let added: Vec<_> = (1..=count).map(|i| entry(last.index + i, last.term.max(1) + terms)).collect();
                log.append(&added);
                self.entries.extend(added);
            }
            Step::Replace(count) => {
                let first = last.index.saturating_sub(count).max(self.applied) + 1;
                let added = [entry(first, last.term.max(1) + 1)];
                log.append(&added);
                self.entries.retain(|entry| entry.index < first);
                self.entries.extend(added);
            }
            Step::Apply(count) => {
                self.applied = last.index.min(self.applied + count);
                log.applied_through(self.applied);
            }
            Step::Evict(count, bytes) => {
                let before = log.memory_bytes();
                let evictable = log.evictable_bytes();
                log.evict(self.applied.min(self.truncated.index + count), bytes);
                assert!(before - log.memory_bytes() <= evictable, "only what is applied is evicted");
            }
            Step::Truncate(count) => {
                let index = self.applied.min(self.truncated.index + count);
                log.truncate(index);
                let term = self.entries.iter().find(|entry| entry.index == index).map(|entry| entry.term);
                self.truncated = term.map_or(self.truncated, |term| Position { index, term });
                self.entries.retain(|entry| entry.index > index);
            }
            Step::Restore(beyond) => {
                let position = Position { index: last.index + beyond, term: last.term.max(1) };
                let members = ConfState { voters: vec![1], ..ConfState::default() };
                log.restore(position, members);
                (self.truncated, self.entries, self.applied) = (position, Vec::new(), position.index);
            }
        }
    }

    fn check(&self, log: &EntryLog) {
        let bytes = |entries: &[Entry]| entries.iter().map(entry_bytes).sum::<usize>();
        assert_eq!((log.truncated(), log.last()), (self.truncated, self.last().index));
        assert_eq!(log.bytes(), bytes(&self.entries));
        let unapplied: Vec<_> = self.entries.iter().filter(|entry| entry.index > self.applied).cloned().collect();
        assert_eq!(log.unapplied_bytes(), bytes(&unapplied));
        let mut memory = 0;
        for entry in &self.entries {
            assert_eq!(log.term(entry.index).ok(), Some(entry.term));
            let is_evicted = log.is_evicted(entry.index);
            assert!(!is_evicted || entry.index <= self.applied);
            memory += if is_evicted { ENTRY_OVERHEAD_BYTES } else { entry_bytes(entry) };
            let found = log.entries(entry.index, entry.index + 1, None, GetEntriesContext::empty(true));
            assert_eq!(found.ok(), (!is_evicted).then(|| vec![entry.clone()]));
        }
        assert_eq!(log.memory_bytes(), memory);
        assert_eq!(log.memory_bytes() - log.evictable_bytes(), memory - evictable(&self.entries, log, self.applied));
    }
}

fn evictable(entries: &[Entry], log: &EntryLog, applied: u64) -> usize {
    let in_memory = entries.iter().filter(|entry| entry.index <= applied && !log.is_evicted(entry.index));
    in_memory.map(|entry| entry_bytes(entry) - ENTRY_OVERHEAD_BYTES).sum()
}

proptest! {
    #[test]
    fn a_log_knows_size_and_term_of_each_entry_and_has_those_that_are_not_evicted(steps in steps()) {
        let mut model = Model::default();
        let mut log =
            EntryLog::new(Position::default(), FoundEntries::default(), 0, HardState::default(), ConfState::default());
        for step in steps {
            model.step(step, &mut log);
            model.check(&log);
        }
    }
}
