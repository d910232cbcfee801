//! Commits that do not block: logged ones wait in a queue for the `commit` job, derived ones for capacity in memory
//! alone, since they need no log.

use super::WritePath;
use super::completion::{Completion, Done};
use super::group_commit::refusal;
use super::prepare::PreparedCommit;
use super::queue::Pending;
use super::visibility::Due;
use crate::{Commit, Durability, Error};

impl WritePath {
    /// A commit that does not block; `done` gets the answer, also a refusal.
    pub(crate) fn submit(&self, commit: Commit, done: Done) {
        let done = self.measured(&commit, done);
        match self.prepare(commit) {
            Ok(commit) => {
                let logged = commit.durability != Durability::Derived;
                self.place(commit, done);
                if logged {
                    self.shared.jobs.wake_commit();
                }
            }
            Err(error) => {
                // Refused at once, before those that wait: they are valid, this one never was.
                self.memtables.completions.expect();
                self.memtables.completions.push([Completion { done, result: Err(error) }]);
                self.memtables.completions.run();
            }
        }
    }

    /// The same, with the time until the answer recorded, if this commit was sampled for that.
    fn measured(&self, commit: &Commit, done: Done) -> Done {
        let Some(started) = self.shared.recorder.start_sampled() else { return done };
        self.shared.recorder.note_writes(&commit.batch, Some(started));
        let recorder = self.shared.recorder.clone();
        Box::new(move |result| {
            recorder.end(&recorder.write, Some(started).filter(|_| result.is_ok()));
            done(result);
        })
    }

    /// One step of the `commit` job; returns whether to call it again.
    pub(crate) fn commit_step(&self) -> bool {
        if let Err(error) = self.shared.health.check_writable() {
            self.refuse_all(&error);
            return false;
        }
        self.insert_derived(false);
        let mut again = false;
        if self.queue.try_lead() {
            let led = self.lead();
            again = self.queue.stop_leading() && led;
        }
        self.memtables.completions.run();
        again
    }

    /// Puts a checked commit in its queue; derived ones are written at once, if there is capacity.
    pub(super) fn place(&self, commit: PreparedCommit, done: Done) {
        self.memtables.completions.expect();
        let derived = commit.durability == Durability::Derived;
        let pending = Pending { commit, done };
        if derived {
            self.queue.derived.lock().push_back(pending);
            self.insert_derived(true);
            self.memtables.completions.run();
        } else {
            self.queue.push(pending);
        }
        // A close or stop after the commit was checked may have found the queue still empty.
        if let Err(error) = self.shared.health.check_writable() {
            self.refuse_all(&error);
        }
    }

    /// Answers everything that waits with `error`, for good. Not under any lock.
    pub(crate) fn refuse_all(&self, error: &Error) {
        self.refuse_logged(error);
        let derived: Vec<Pending> = self.queue.derived.lock().drain(..).collect();
        self.memtables.completions.push(derived.into_iter().map(|pending| refusal(pending, error)));
        self.memtables.completions.run();
    }

    /// Answers the logged commits that wait with `error`, after those that are in progress; the caller runs the
    /// completions.
    pub(crate) fn refuse_logged(&self, error: &Error) {
        for pending in self.queue.take_logged() {
            let due = Due { sequence: self.log.last_sequence(), log_end: 0 };
            let left = self.memtables.answer(due, refusal(pending, error));
            left.into_iter().for_each(|answer| self.refuse(answer));
        }
    }

    /// Writes derived commits while there is capacity, in order. With `retry`, requests a flush if there is none: for
    /// new commits only, since the job is woken by the very work that failed to free memory, and the two would keep
    /// each other busy for as long as the disk is full.
    fn insert_derived(&self, retry: bool) {
        let mut waiting = self.queue.derived.lock();
        while let Some(pending) = waiting.front() {
            if pending.commit.batch.is_empty() {
                let Pending { done, .. } = waiting.pop_front().expect("there is a front");
                let left = self.memtables.answer_after_all(Completion { done, result: Ok(self.memtables.visible()) });
                left.into_iter().for_each(|answer| self.refuse(answer));
                continue;
            }
            if let Err(error) = self.check_families_again(&pending.commit.batch, pending.commit.drops) {
                let Pending { done, .. } = waiting.pop_front().expect("there is a front");
                let left = self.memtables.answer_after_all(Completion { done, result: Err(error) });
                left.into_iter().for_each(|answer| self.refuse(answer));
                continue;
            }
            let begun = self.memtables.begin(false, |_| Ok(None)).expect("nothing is appended, so nothing fails");
            let Some((mut ticket, frozen)) = begun else {
                if retry {
                    self.note_stall();
                }
                return;
            };
            if frozen {
                self.shared.jobs.wake_flush();
            }
            let Pending { commit, done } = waiting.pop_front().expect("there is a front");
            self.shared.counters.note_commit(Durability::Derived);
            let result = Ok(ticket.sequence);
            self.insert(&commit, &mut ticket, Some(Completion { done, result }));
        }
    }

    /// There is no capacity in memory: writers wait.
    pub(crate) fn note_stall(&self) {
        self.shared.counters.note_stall();
        self.shared.jobs.wake_flush();
        self.shared.jobs.wake_compact();
    }
}
