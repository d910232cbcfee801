//! Performs the effects of raftstore and placement.

use super::error::{NodeError, StopReason};
use super::inbox::{Input, LaneKind};
use super::lane::{Lane, derived};
use super::{Driver, PLACEMENT_REGION, Pending, Refusal};
use crate::planted::{self, Bug};
use bytes::Bytes;
use kontiki_engine::{Commit, Error as EngineError, WriteBatch};
use kontiki_placement::{Now, Output, WriteId};
use kontiki_raftstore::{Answer, Effects, Event, Observation, ReadId, RegionError, RegionId, StoreId};
use kontiki_state::StateView;
use std::sync::atomic::Ordering;

impl Driver {
    /// Performs effects until there are none: effects of raftstore cause effects of placement, and vice versa.
    pub(super) fn perform_all(&mut self, now: Now) {
        while self.stopped.is_none() {
            // Placement first: its writes belong to the leadership under which they were made. A new one cannot begin
            // between two polls of raftstore, since a candidate must persist its vote.
            let outputs = self.placement.poll();
            let quiet = outputs.is_empty();
            for output in outputs {
                match output {
                    Output::Reply { id, response } => self.placement_replied(id, response, now),
                    Output::Write { id, batch } => self.propose_for_placement(id, batch, now),
                }
            }
            let effects = self.store.poll(now.monotonic);
            if quiet && effects.is_empty() {
                return;
            }
            self.perform(effects, now);
        }
    }

    pub(super) fn perform(&mut self, effects: Effects, now: Now) {
        if let Some(fault) = effects.fault {
            self.stop(StopReason::Fault(fault));
            return;
        }
        for task in effects.checksums {
            self.begin_checksum(task, now);
        }
        if !effects.safe_ts.is_empty() {
            // Before the applies of these effects, as it is now: that is enough.
            self.find_oldest_locks(effects.safe_ts);
        }
        if effects.wants_timestamp {
            self.ask_timestamp(now);
        }
        self.send(effects.send);
        if let Some(persist) = effects.persist {
            let id = persist.id;
            self.persists.push(id, persist.commit);
            if planted::is_set(Bug::PersistedAtOnce) {
                self.store.handle(Event::Persisted { batch: id }, now.monotonic);
            }
        }
        if let Some(apply) = effects.apply {
            self.region_sizes.count(&apply);
            self.applies.push(apply.id, derived(apply.batch));
        }
        self.feed_lanes();
        if effects.flush {
            self.flusher.ask();
        }
        for task in effects.snapshots {
            self.start_snapshot_task(task);
        }
        if !effects.entries.is_empty() {
            self.surveys.entries(effects.entries);
        }
        for observation in effects.observations {
            self.observe(observation, now);
        }
        for (ticket, answer) in effects.answers {
            let pending = self.pending.waiting.remove(&ticket);
            debug_assert!(pending.is_some(), "{ticket:?} is answered once");
            if let Some(observer) = &mut self.observers.proposals {
                observer(ticket, None);
            }
            if let Some(pending) = pending {
                self.answer(pending, answer, now);
            }
        }
    }

    fn send(&mut self, messages: Vec<(StoreId, Bytes)>) {
        self.outbound.extend(messages.into_iter().map(super::raft_message));
    }

    /// Starts the next commit of each lane that is free.
    pub(super) fn feed_lanes(&mut self) {
        if let Some(commit) = self.persists.take() {
            self.persist_begun();
            self.submit(LaneKind::Persist, commit);
        }
        if let Some(commit) = Some(&mut self.applies).filter(|_| !self.applies_held).and_then(Lane::take) {
            if let Some(observer) = &mut self.observers.applies {
                observer(&*self.state, &commit.batch);
            }
            self.submit(LaneKind::Apply, commit);
        }
    }

    fn submit(&self, lane: LaneKind, commit: Commit) {
        let inbox = self.shared.inbox.clone();
        match lane {
            LaneKind::Persist => {
                self.log.submit(commit, Box::new(move |result| inbox.push(Input::Committed { lane, result })));
            }
            LaneKind::Apply => {
                let done = move |result| inbox.push(Input::Committed { lane, result });
                self.state.submit(commit.batch, commit.durability, Box::new(done));
            }
        }
    }

    pub(super) fn persist_ended(&mut self, result: Result<(), EngineError>, now: Now) {
        match result {
            Ok(()) => {
                self.shared.counters.persists.increment();
                if !self.log_disk.no_room() && self.shared.disk_full.swap(false, Ordering::Relaxed) {
                    tracing::info!("the disk has free space again; writes resume");
                }
                let reported_early = planted::is_set(Bug::PersistedAtOnce);
                for batch in self.persists.succeeded().into_iter().filter(|_| !reported_early) {
                    self.store.handle(Event::Persisted { batch }, now.monotonic);
                }
                self.persist_done(true, now);
            }
            Err(error) if error.is_retryable() && planted::is_set(Bug::ForgetRefusedPersist) => {
                for batch in self.persists.succeeded() {
                    self.store.handle(Event::Persisted { batch }, now.monotonic);
                }
                self.persist_done(true, now);
            }
            Err(error) if error.is_retryable() && self.persists.refused() => {
                if !self.shared.disk_full.swap(true, Ordering::Relaxed) {
                    tracing::warn!("writes stop: {error}");
                }
                self.abandon_proposals();
                self.persist_done(false, now);
            }
            Err(error) => self.stop(StopReason::Engine { doing: "persisted the raft log", error }),
        }
        self.feed_lanes();
    }

    /// Notifies the callers that wait for a write that the disk is full: the write is in the log in memory, so it may
    /// still take effect. A caller that holds latches for a write continues to wait, because no other write may
    /// overtake it.
    pub(super) fn abandon_proposals(&mut self) {
        for pending in self.pending.waiting.values_mut() {
            let waits = |is_bound: bool| is_bound && !planted::is_set(Bug::UnlatchOnFullDisk);
            if matches!(pending, Pending::Proposal { is_bound, .. } if !waits(*is_bound))
                && let Pending::Proposal { reply, .. } = std::mem::replace(pending, Pending::Abandoned)
            {
                self.shared.counters.proposals_undetermined.increment();
                reply.send(Err(NodeError::DiskFullUndetermined));
            }
        }
    }

    /// A persist that a full disk refused is tried again, on ticks.
    pub(super) fn retry_persist(&mut self) {
        if let Some(commit) = self.persists.retry() {
            self.shared.counters.persist_retries.increment();
            self.persist_begun();
            self.submit(LaneKind::Persist, commit);
        }
    }

    pub(super) fn apply_ended(&mut self, result: Result<(), EngineError>, now: Now) {
        match result {
            Ok(()) => {
                self.shared.counters.applies.increment();
                for through in self.applies.succeeded() {
                    self.store.handle(Event::Applied { through }, now.monotonic);
                }
            }
            Err(error) => self.stop(StopReason::Engine { doing: "applied committed entries", error }),
        }
        self.feed_lanes();
    }

    /// A read of a log ended.
    pub(super) fn entries_read(
        &mut self,
        region: RegionId,
        id: ReadId,
        result: Result<Vec<Bytes>, EngineError>,
        now: Now,
    ) {
        if let Err(error @ EngineError::Corruption { .. }) = &result {
            // A leader with a whole log can bring its followers up to date.
            self.handle().met_damage(region, error);
        }
        let result = result.map_err(|error| error.to_string());
        self.store.handle(Event::EntriesRead { region, id, result }, now.monotonic);
    }

    fn answer(&mut self, pending: Pending, answer: Answer, now: Now) {
        let counters = &self.shared.counters;
        match (pending, answer) {
            (Pending::Abandoned, _) => {}
            (Pending::Proposal { reply, .. }, answer) => reply.send(match answer {
                Answer::Ok { index } => {
                    counters.proposals_applied.increment();
                    Ok(index)
                }
                Answer::Refused(error) => {
                    counters.proposals_refused.increment();
                    Err(error.into())
                }
                Answer::Dropped => {
                    counters.proposals_undetermined.increment();
                    Err(NodeError::Undetermined)
                }
            }),
            (Pending::Barrier(reply), answer) => reply.send(match answer {
                Answer::Ok { index } => Ok(index),
                Answer::Refused(error) => Err(error.into()),
                // A barrier changes nothing: the caller may repeat it.
                Answer::Dropped => Err(RegionError::StaleCommand.into()),
            }),
            (Pending::PlacementWrite(write), answer) => {
                self.placement.written(write, matches!(answer, Answer::Ok { .. }), now);
            }
            (Pending::ChangeMembers { region, reply }, answer) => self.change_ended(region, reply, answer),
            (Pending::Merge(wanted), answer) => self.merge_prepared(wanted, answer),
            (Pending::Split(proposed), answer) => self.split_ended(proposed, answer, now),
            (Pending::Check { region, reply }, answer) => self.check_answered(region, reply, answer, now),
            (Pending::GcSafePoint { region, safe_point }, answer) => {
                self.gc_proposal_ended(region, safe_point, matches!(answer, Answer::Ok { .. }));
            }
            (Pending::CallBarrier(call), answer) => {
                self.call_barrier_ended(call, matches!(answer, Answer::Ok { .. }), now);
            }
        }
    }

    fn propose_for_placement(&mut self, write: WriteId, batch: WriteBatch, now: Now) {
        let region = self.shared.readers.region(PLACEMENT_REGION).filter(|_| !self.is_disk_full());
        let Some((region, _)) = region else {
            self.placement.written(write, false, now);
            return;
        };
        let ticket = self.pending.add(Pending::PlacementWrite(write));
        let event = Event::Propose { region: PLACEMENT_REGION, epoch: region.epoch, batch, ticket };
        self.store.handle(event, now.monotonic);
    }

    fn observe(&mut self, observation: Observation, now: Now) {
        tracing::debug!(store = self.config.store_id, ?observation);
        if matches!(observation, Observation::LeaderChanged { .. }) {
            self.shared.leader_news.send_replace(());
        }
        match observation {
            Observation::BecameLeader { region, term } => {
                self.shared.leader_terms.lock().insert(region, term);
                self.heartbeats.region_changed(region);
                self.region_sizes.leads(region);
                self.region_loads.leads(region, now.monotonic);
                self.checks.leads(region, now.wall_ms);
                if region == PLACEMENT_REGION {
                    // An entry of this term is applied, so a state from now on holds every earlier leader's bounds.
                    self.surveys.placement(term);
                    self.begin_detection();
                } else {
                    self.send_heartbeats(now);
                }
            }
            Observation::SteppedDown { region, .. } => {
                self.shared.leader_terms.lock().remove(&region);
                self.region_sizes.leads_no_more(region);
                self.region_loads.leads_no_more(region);
                self.checks.leads_no_more(region);
                self.gc.leads_no_more(region);
                if region == PLACEMENT_REGION {
                    self.placement.step_down();
                }
            }
            Observation::LeaderChanged { region: PLACEMENT_REGION, leader: Some(_), .. } => {
                self.placement_leader_changed(now.monotonic);
                self.tend_calls(now, true);
            }
            Observation::LeaderChanged { .. } => {}
            Observation::RegionRemoved { region } => {
                self.merge_missed(region);
                // What belongs here is not known any more.
                self.shared.holds_all_regions.store(false, Ordering::Relaxed);
                self.formation.regions_changed();
            }
            Observation::RegionMerged { region, into } => self.region_merged(region, into),
            Observation::Checked { region, index, outcome } => self.checked(region, index, outcome, now),
            Observation::Refused { region, from, why } => self.note_refusal(region, from, why, now),
            Observation::RegionChanged { region } => {
                self.formation.regions_changed();
                self.heartbeats.region_changed(region.id);
                self.region_sizes.range_changed(region.id);
                self.region_loads.range_changed(region.id);
                self.merge_may_have_ended(&region);
            }
        }
    }

    /// Keeps a refusal for the status pages, and logs it at a bounded rate: a peer repeats its message at every
    /// heartbeat.
    fn note_refusal(&self, region: RegionId, from: StoreId, why: &'static str, now: Now) {
        self.shared.counters.messages_refused.increment();
        let mut refusals = self.shared.refusals.lock();
        let last = refusals.get(&region);
        let count = last.map_or(0, |last| last.count) + 1;
        if count.is_power_of_two() {
            tracing::error!(region = region.0, from = from.0, why, count, "a raft message was refused");
        }
        refusals.insert(region, Refusal { from, why, at: now.monotonic, count });
    }

    /// The state from which the leader of `term` continues has been read.
    pub(super) fn lead_placement(&mut self, term: u64, state: Result<StateView, String>, now: Now) {
        if self.shared.leader_terms.lock().get(&PLACEMENT_REGION) != Some(&term) {
            return; // It no longer leads, or leads again: that term has requested its own state.
        }
        match state.and_then(|state| self.placement.lead(&state, now).map_err(|error| error.to_string())) {
            Ok(()) => {
                self.placement_leader_changed(now.monotonic);
                self.tend_calls(now, true);
            }
            Err(error) => self.stop(StopReason::Placement(error)),
        }
    }
}
