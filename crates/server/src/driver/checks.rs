//! The replicas of the regions that this node leads are compared: on a schedule, and by request. raftstore does it
//! (`peer/consistency.rs` there); the design is in docs/internals/consistency.md.

use super::error::{NoChecksum, NodeError};
use super::inbox::Reply;
use super::{Driver, PLACEMENT_REGION, Pending};
use kontiki_engine::Error as EngineError;
use kontiki_placement::Now;
use kontiki_raftstore::command::{Action, Command};
use kontiki_raftstore::{Answer, CheckOutcome, ChecksumTask, Event, RegionError, RegionId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often the schedule is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A check that has not ended by then is not waited for any more: another region gets its turn.
const CHECK_TIME_MAX: Duration = Duration::from_secs(15 * 60);
const CHECK_TIME_MAX_MS: u64 = CHECK_TIME_MAX.as_millis() as u64;
/// When a check that could not begin, or did not find all replicas equal, is tried again, as a share of the interval.
const RETRY_SHARE: u64 = 16;

/// Which regions are compared, and when.
///
/// Each region has its times in every interval of the wall clock, the same on every node: so it is compared once in an
/// interval although its leader changes more often.
pub(super) struct Checks {
    /// Between two checks of a region, in milliseconds; 0: only by request.
    interval_ms: u64,
    /// When each region that this node leads is due, by the wall clock.
    due_ms: BTreeMap<RegionId, u64>,
    /// The scheduled check under way, and since when.
    under_way: Option<(RegionId, Duration)>,
    look_at: Duration,
    /// Those who wait for the outcome of a check that has begun.
    waiting: BTreeMap<RegionId, Vec<Reply<CheckOutcome>>>,
    /// The outcome that came last: it may come before its command is answered.
    last: Option<(RegionId, u64, CheckOutcome)>,
}

impl Checks {
    pub(super) fn new(interval: Duration, now: Duration) -> Checks {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let (due_ms, waiting) = (BTreeMap::new(), BTreeMap::new());
        Checks { interval_ms, due_ms, under_way: None, look_at: now, waiting, last: None }
    }

    /// The first time after `wall_ms` at which a region is due.
    fn next_time(&self, region: RegionId, wall_ms: u64) -> u64 {
        let phase_ms = kontiki_env::codec::hash64(&region.0.to_le_bytes()) % self.interval_ms;
        let passed = wall_ms.checked_sub(phase_ms).map_or(0, |since_ms| since_ms / self.interval_ms + 1);
        phase_ms + passed * self.interval_ms
    }

    /// The placement group is left out: its first records come from each founder's own list of nodes.
    pub(super) fn leads(&mut self, region: RegionId, wall_ms: u64) {
        if self.interval_ms > 0 && region != PLACEMENT_REGION {
            self.due_ms.insert(region, self.next_time(region, wall_ms));
        }
    }

    pub(super) fn leads_no_more(&mut self, region: RegionId) {
        self.due_ms.remove(&region);
        self.under_way.take_if(|(running, _)| *running == region);
        for reply in self.waiting.remove(&region).unwrap_or_default() {
            reply.send(Err(RegionError::StaleCommand.into()));
        }
    }

    /// The region whose turn it is.
    fn next(&mut self, now: Now) -> Option<RegionId> {
        if self.under_way.is_some_and(|(_, since)| now.monotonic < since + CHECK_TIME_MAX) {
            return None;
        }
        let (region, due_ms) = self.due_ms.iter().min_by_key(|(_, due_ms)| **due_ms)?;
        let (region, due_ms) = (*region, *due_ms);
        if now.wall_ms < due_ms {
            return None;
        }
        self.due_ms.insert(region, self.next_time(region, now.wall_ms));
        self.under_way = Some((region, now.monotonic));
        Some(region)
    }

    /// A check has ended, or could not begin. What is not known to be equal is compared again soon.
    fn ended(&mut self, region: RegionId, is_equal: bool, wall_ms: u64) {
        self.under_way.take_if(|(running, _)| *running == region);
        let retry_ms = wall_ms + self.interval_ms / RETRY_SHARE;
        if let Some(due_ms) = self.due_ms.get_mut(&region).filter(|_| !is_equal) {
            *due_ms = (*due_ms).min(retry_ms);
        }
    }

    /// The node stops: no outcome comes any more.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

impl Driver {
    /// Begins the check whose turn it is.
    pub(super) fn tend_checks(&mut self, now: Now) {
        if now.monotonic < self.checks.look_at {
            return;
        }
        self.checks.look_at = now.monotonic + LOOK_INTERVAL;
        if let Some(region) = self.checks.next(now) {
            self.begin_check(region, None, now);
        }
    }

    /// Begins to compare the replicas of a region. `None`: by schedule.
    pub(super) fn begin_check(&mut self, region: RegionId, reply: Option<Reply<CheckOutcome>>, now: Now) {
        let found = self.shared.readers.region(region).filter(|_| region != PLACEMENT_REGION);
        let Some((descriptor, _)) = found else {
            return self.check_answered(region, reply, Answer::Refused(RegionError::RegionNotFound { region }), now);
        };
        let ticket = self.pending.add(Pending::Check { region, reply });
        // Of a check that has not ended by then no result is waited for.
        let expires_after_ms = now.wall_ms.saturating_add(CHECK_TIME_MAX_MS);
        let action = Action::ComputeChecksum { expires_after_ms };
        let command = Command { epoch: descriptor.epoch, action };
        self.store.handle(Event::Command { region, command, ticket }, now.monotonic);
    }

    /// The command that begins a check was applied, or was not.
    pub(super) fn check_answered(
        &mut self,
        region: RegionId,
        reply: Option<Reply<CheckOutcome>>,
        answer: Answer,
        now: Now,
    ) {
        let error = match answer {
            // A leadership that has ended since has no outcome.
            Answer::Ok { index } if self.shared.leads(region) => {
                let Some(reply) = reply else { return };
                match &self.checks.last {
                    Some((of, at, outcome)) if (*of, *at) == (region, index) => reply.send(Ok(outcome.clone())),
                    _ => self.checks.waiting.entry(region).or_default().push(reply),
                }
                return;
            }
            Answer::Ok { .. } | Answer::Dropped => RegionError::StaleCommand,
            Answer::Refused(error) => error,
        };
        match reply {
            Some(reply) => reply.send(Err(NodeError::Region(error))),
            None => {
                tracing::debug!(region = region.0, %error, "the replicas were not compared; it is tried again");
                self.checks.ended(region, false, now.wall_ms);
            }
        }
    }

    /// A checksum is to be computed here.
    pub(super) fn begin_checksum(&mut self, task: ChecksumTask, now: Now) {
        let (region, index) = (task.region.id, task.index);
        if let Err(why) = self.checksums.begin(task, now.monotonic) {
            let result = Err(why.to_owned());
            self.store.handle(Event::Checksummed { region, index, result }, now.monotonic);
        }
    }

    /// A checksum was computed here.
    pub(super) fn checksum_ended(&mut self, region: RegionId, index: u64, result: Result<u64, NoChecksum>, now: Now) {
        if let Err(NoChecksum::Engine(error @ EngineError::Corruption { .. })) = &result {
            self.handle().met_damage(region, error);
        }
        let result = result.map_err(|error| error.to_string());
        self.store.handle(Event::Checksummed { region, index, result }, now.monotonic);
    }

    /// The replicas of a region that is led here were compared.
    pub(super) fn checked(&mut self, region: RegionId, index: u64, outcome: CheckOutcome, now: Now) {
        let CheckOutcome { checksum, agreeing, differing, missing } = &outcome;
        let counters = &self.shared.counters;
        counters.consistency_checks.increment();
        if !missing.is_empty() {
            counters.consistency_checks_incomplete.increment();
        }
        if !differing.is_empty() {
            counters.consistency_differences.increment();
            let what = match checksum {
                Some(_) => "those that differ from the majority stop",
                None => "no majority agrees, so it is not known which are right",
            };
            let region = region.0;
            tracing::error!(region, index, ?agreeing, ?differing, ?missing, "replicas hold different data: {what}");
        } else if !missing.is_empty() {
            tracing::warn!(region = region.0, index, ?missing, "replicas were compared without those of some stores");
        }
        self.checks.ended(region, outcome.is_equal(), now.wall_ms);
        for reply in self.checks.waiting.remove(&region).unwrap_or_default() {
            reply.send(Ok(outcome.clone()));
        }
        self.checks.last = Some((region, index, outcome));
    }
}

#[cfg(test)]
#[path = "checks_test.rs"]
mod tests;
