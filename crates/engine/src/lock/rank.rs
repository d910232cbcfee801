//! The ranks of locks, and what each thread holds: see the head of `mod.rs`.

/// The place of a lock in the order: a thread takes locks by ascending rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Callers that change files on their threads, against the close.
    Foreground,
    /// One ingest at a time.
    Ingest,
    /// One creation or drop of a family at a time.
    FamilyChange,
    /// One collection of the value log's garbage at a time.
    ValueCollection,
    /// Writers of values, against the close of the value log.
    ValueWriters,
    /// One new value segment at a time.
    ValueSegmentCreation,
    /// Value segments are sealed.
    ValueSeal,
    /// One log segment is made ahead at a time.
    LogSegmentCreation,
    /// Pieces of large compactions.
    CompactionPieces,
    /// The claims of compactions in flight.
    CompactionClaims,
    /// The log's writer: the order of commits.
    Log,
    /// Derived commits that wait.
    DerivedQueue,
    /// A batch with a number that is not in its memtable yet.
    Insertion,
    /// The index of streams.
    Streams,
    /// Results of background work.
    Progress,
    /// The throttle of writers.
    Throttle,
    /// The manifest: edits of the version.
    Manifest,
    /// Sequence numbers and memtables.
    Writes,
    /// What is visible and durable.
    Visibility,
    /// Answers that are due.
    Completions,
    /// The log segments that exist.
    LogSegments,
    /// The log segment that is ready.
    NextLogSegment,
    /// The recorded extent of manifest and log.
    Extent,
    /// The log files that a sync must cover.
    LogTail,
    /// Where the log's syncs find the value log.
    LogTailValues,
    /// The sync of one value segment.
    ValueSync,
    /// Value segments that are appended to.
    ValueAppender,
    /// Logged commits that wait.
    LoggedQueue,
    /// The starts of open transactions.
    TransactionStarts,
    /// The open transactions.
    Transactions,
    /// Which transaction waits for which lock of a key.
    KeyLockWaits,
    /// Locks of keys.
    KeyLocks,
    /// What a transaction has read.
    TransactionReads,
    /// The holders of the log, and the warnings about them.
    LogWatch,
    /// Subscribers of the change feed.
    FeedSubscribers,
    /// Where subscribers of the change feed sleep.
    FeedSleep,
    /// Why writes have stopped.
    Health,
    /// The end of a close.
    Closing,
    /// The lock file of the directory.
    DirectoryLock,
    /// The result of one piece of a compaction.
    PieceResults,
    /// Keys at which flushes cut tables.
    FlushGuards,
    /// Bytes that background work may write.
    RateLimit,
    /// Statistics of compactions.
    CompactionStats,
    /// Value files that a relocation found damaged.
    DamagedValueFiles,
    /// The last batches that refer to value segments.
    ValueBounds,
    /// Buffers for values being written.
    ValueBuffers,
    /// A commit's answer.
    Answer,
    /// Range tombstones of a memtable.
    MemtableRanges,
    /// The memory of a memtable.
    MemtableArena,
    /// Ranges of keys in which nothing is visible.
    DeadRanges,
    /// Open tables.
    OpenTables,
    /// A shard of the cache of blocks or values.
    CacheShard,
    /// A bucket of the cache of values.
    ValueCacheBucket,
    /// Files that nothing refers to.
    ObsoleteFiles,
    /// The most read and written keys.
    HotKeys,
    /// Descriptors that are held for syncs of directories.
    DescriptorReserve,
    /// The background jobs.
    Jobs,
}

impl Rank {
    /// Whether a thread may wait for others while it holds such a lock: no thread that ends a wait takes it.
    #[cfg(debug_assertions)]
    fn may_be_held_while_waiting(self) -> bool {
        matches!(
            self,
            Rank::Foreground
                | Rank::Ingest
                | Rank::FamilyChange
                | Rank::ValueCollection
                | Rank::ValueWriters
                | Rank::ValueSegmentCreation
                | Rank::ValueSeal
                | Rank::LogSegmentCreation
        )
    }
}

#[cfg(debug_assertions)]
mod held {
    use super::Rank;
    use std::cell::RefCell;
    use std::marker::PhantomData;

    thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    /// A lock that this thread holds.
    pub(crate) struct Held {
        rank: Rank,
        /// It belongs to its thread.
        _here: PhantomData<*const ()>,
    }

    impl Held {
        /// The caller is about to wait for a lock of this rank.
        pub(crate) fn acquire(rank: Rank) -> Held {
            HELD.with_borrow(|held| {
                let above = held.iter().find(|other| **other >= rank);
                assert!(
                    above.is_none() || std::thread::panicking(),
                    "a thread that holds {held:?} takes {rank:?}: locks are taken by ascending rank (lock.rs)"
                );
            });
            Held::note(rank)
        }

        /// The caller has a lock that it did not wait for.
        pub(crate) fn note(rank: Rank) -> Held {
            HELD.with_borrow_mut(|held| held.push(rank));
            Held { rank, _here: PhantomData }
        }

        /// The caller is about to wait at a condition of this lock.
        pub(crate) fn check_wait(&self) {
            check("a condition", |rank| rank == self.rank || rank.may_be_held_while_waiting());
        }

        /// The caller is about to wait, at a condition of this lock, for batches to be inserted.
        pub(crate) fn check_wait_for_insertions(&self) {
            check("insertions", |rank| rank == self.rank || rank < Rank::Insertion);
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            // Threads that end may have lost their list already.
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                let at = held.iter().rposition(|other| *other == self.rank);
                held.swap_remove(at.expect("what is held was noted"));
            });
        }
    }

    fn check(what: &str, allowed: impl Fn(Rank) -> bool) {
        HELD.with_borrow(|held| {
            assert!(
                held.iter().all(|rank| allowed(*rank)) || std::thread::panicking(),
                "a thread waits for {what} while it holds {held:?} (lock.rs)"
            );
        });
    }

    /// Called before a wait for other threads: the caller holds nothing that they may need.
    pub(crate) fn check_wait() {
        check("other threads", Rank::may_be_held_while_waiting);
    }
}

#[cfg(not(debug_assertions))]
mod held {
    use super::Rank;
    use std::marker::PhantomData;

    pub(crate) struct Held(PhantomData<*const ()>);

    impl Held {
        #[inline]
        pub(crate) fn acquire(_rank: Rank) -> Held {
            Held(PhantomData)
        }

        #[inline]
        pub(crate) fn note(_rank: Rank) -> Held {
            Held(PhantomData)
        }

        #[inline]
        pub(crate) fn check_wait(&self) {}

        #[inline]
        pub(crate) fn check_wait_for_insertions(&self) {}
    }

    #[inline]
    pub(crate) fn check_wait() {}
}

pub(crate) use held::{Held, check_wait};

/// A batch that has its number and is not in its memtable yet: see the head of this file. Belongs to the thread that
/// inserts it.
pub(crate) struct Unfinished {
    _held: Held,
}

impl Unfinished {
    /// There is no wait, so every lock that the caller holds is allowed.
    pub(crate) fn begin() -> Unfinished {
        Unfinished { _held: Held::note(Rank::Insertion) }
    }
}
