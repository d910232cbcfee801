use super::*;
use kontiki_env::rng::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Versions in a list; reports runs, some of them too short.
struct ListCursor {
    /// In the order of the walk.
    versions: Vec<(Vec<u8>, u64)>,
    direction: Direction,
    at: usize,
    /// Fails at this position.
    fails_at: usize,
    /// Steps of runs that were reported.
    runs: Arc<AtomicU64>,
    modest: bool,
}

impl ListCursor {
    fn beyond(&self, at: usize, target: KeyRef<'_>) -> bool {
        let key = KeyRef::new(&self.versions[at].0, self.versions[at].1);
        if self.direction == Direction::Forward { key >= target } else { key <= target }
    }
}

impl Cursor for ListCursor {
    fn valid(&self) -> bool {
        self.at < self.versions.len().min(self.fails_at)
    }

    fn key(&self) -> KeyRef<'_> {
        KeyRef::new(&self.versions[self.at].0, self.versions[self.at].1)
    }

    fn kind(&self) -> Kind {
        Kind::Put
    }

    fn stored(&self) -> Bytes {
        Bytes::new()
    }

    fn stored_slice(&self) -> &[u8] {
        &[]
    }

    fn run_before(&self, limit: KeyRef<'_>) -> usize {
        let end = self.versions.len().min(self.fails_at);
        let run = (self.at + 1..end).take_while(|&at| !self.beyond(at, limit)).count();
        let run = if self.modest { run.min(2) } else { run };
        self.runs.fetch_add(run as u64, Relaxed);
        run
    }

    fn advance(&mut self) -> Result<()> {
        self.at += 1;
        if self.at == self.fails_at {
            return Err(crate::Error::Closed);
        }
        Ok(())
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.at = (0..self.versions.len()).find(|&at| self.beyond(at, target)).unwrap_or(self.versions.len());
        Ok(())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.at = 0;
        Ok(())
    }
}

fn key(rng: &mut Rng, spread: u64) -> Vec<u8> {
    // With and without a common start longer than what stands in the heap; some a prefix of others.
    let number = rng.below(spread);
    let start: &[u8] = if number.is_multiple_of(3) { b"a common start/" } else { b"" };
    [start, &number.to_be_bytes()[(number % 4) as usize..]].concat()
}

#[test]
fn a_merge_returns_every_version_once_in_order_for_any_runs_of_its_sources() {
    let runs = Arc::new(AtomicU64::new(0));
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let direction = if rng.chance(1, 2) { Direction::Forward } else { Direction::Backward };
        let sources = rng.below(6) as usize;
        let mut all = Vec::new();
        let mut cursors: Vec<Box<dyn Cursor>> = Vec::new();
        for _ in 0..sources {
            // Sources that lie apart, so that there are runs, and sources that interleave.
            let (from, spread) = (rng.below(3) * 1000, rng.range(1..2000));
            let mut versions: Vec<_> = (0..rng.below(60))
                .map(|_| {
                    let mut key = key(&mut rng, spread);
                    key.extend_from_slice(&from.to_be_bytes()[6..]);
                    (key, rng.range(1..5))
                })
                .filter(|version| !all.contains(version))
                .collect();
            let before = |a: &(Vec<u8>, u64), b: &(Vec<u8>, u64)| KeyRef::new(&a.0, a.1).cmp(&KeyRef::new(&b.0, b.1));
            versions.sort_by(before);
            versions.dedup();
            all.extend(versions.iter().cloned());
            if direction == Direction::Backward {
                versions.reverse();
            }
            let (modest, runs) = (rng.chance(1, 3), runs.clone());
            cursors.push(Box::new(ListCursor { versions, direction, at: 0, fails_at: usize::MAX, runs, modest }));
        }
        all.sort_by(|a, b| KeyRef::new(&a.0, a.1).cmp(&KeyRef::new(&b.0, b.1)));
        if direction == Direction::Backward {
            all.reverse();
        }
        let mut merge = MergingCursor::new(cursors, direction);
        merge.seek_to_first().expect("memory");
        for round in 0..4 {
            let mut expected = all.as_slice();
            if round > 0 {
                let target = (key(&mut rng, 1000), rng.below(6));
                let target = KeyRef::new(&target.0, target.1);
                let beyond = |version: &&(Vec<u8>, u64)| match direction {
                    Direction::Forward => KeyRef::new(&version.0, version.1) < target,
                    Direction::Backward => KeyRef::new(&version.0, version.1) > target,
                };
                expected = &expected[expected.iter().take_while(beyond).count()..];
                merge.seek(target).expect("memory");
            }
            for version in expected {
                assert!(merge.valid(), "seed {seed}");
                assert_eq!(merge.key(), KeyRef::new(&version.0, version.1), "seed {seed}, round {round}");
                merge.advance().expect("memory");
            }
            assert!(!merge.valid(), "seed {seed}: nothing is made up");
        }
    }
    assert!(runs.load(Relaxed) > 1000, "runs are used");
}

#[test]
fn an_error_ends_a_merge() {
    let list = |keys: std::ops::Range<u8>, fails_at| ListCursor {
        versions: keys.map(|key| (vec![key], 1)).collect(),
        direction: Direction::Forward,
        at: 0,
        fails_at,
        runs: Arc::default(),
        modest: false,
    };
    let cursors: [Box<dyn Cursor>; 2] = [Box::new(list(0..10, 5)), Box::new(list(20..30, usize::MAX))];
    let mut merge = MergingCursor::new(cursors, Direction::Forward);
    merge.seek_to_first().expect("memory");
    for _ in 0..4 {
        merge.advance().expect("not yet");
    }
    assert!(merge.valid() && merge.advance().is_err());
    assert!(!merge.valid());
    merge.seek(KeyRef::before_all(&[20])).expect("a seek makes it whole");
    assert_eq!(merge.key().user_key, &[20]);
}

#[test]
fn of_two_sources_at_the_same_version_the_earlier_one_comes_first() {
    let list = |modest| ListCursor {
        versions: vec![(b"same".to_vec(), 7)],
        direction: Direction::Forward,
        at: 0,
        fails_at: usize::MAX,
        runs: Arc::default(),
        modest,
    };
    let cursors: [Box<dyn Cursor>; 3] = [Box::new(list(false)), Box::new(list(true)), Box::new(list(true))];
    let mut merge = MergingCursor::new(cursors, Direction::Forward);
    merge.seek_to_first().expect("memory");
    for source in 0..3 {
        assert_eq!(merge.heap[0].source, source, "merges of memtable and table of the same flush stay in order");
        merge.advance().expect("memory");
    }
}
