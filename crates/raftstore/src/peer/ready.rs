//! Processing a Ready: what is sent now, what is written, what is sent after the write, what is committed.
//!
//! A leader's messages are sent before its own write is durable, except for its term and vote. These are durable
//! before others vote for it; but a sole voter leads at once, and after a crash it could lead in the same term again,
//! with other entries than those that its learners have got. (The raft crate hands these messages out to be sent at
//! once.)
//!
//! Those of other roles wait, with one exception: an answer to a heartbeat says nothing about the log, so it waits only
//! for a changed term or vote. A stalled disk of a follower therefore delays acknowledgements but does not cost the
//! leader its lease.

use super::{Outstanding, Peer};
use crate::consensus::step::Transfer;
use crate::consensus::wire::{RegionRecord, StoreMessage};
use crate::consensus::{EntryType, Outgoing, OutgoingKind, ReadyBatch, entry_to_wire};
use crate::effect::{Answer, PersistId};
use crate::meta::encode_group_state;
use crate::outbox::Outbox;
use crate::region::{self, StoreId};
use bytes::Bytes;
use kontiki_engine::{StreamId, StreamOp};
use prost::Message;

impl Peer {
    fn stream(&self) -> StreamId {
        StreamId(self.region.id.0)
    }

    pub(super) fn take_ready(&mut self, ready_batch: ReadyBatch, out: &mut Outbox) {
        let mut writes = ready_batch.vote_changed;
        if let Some((position, dropped_above)) = ready_batch.snapshot {
            assert!(ready_batch.committed.is_empty(), "nothing is committed above a snapshot that is not persisted");
            self.restore(position, dropped_above, out);
            writes = true;
        }
        self.state_dirty |= ready_batch.vote_changed && !self.config.planted().vote_not_persisted;
        // With a membership change it is recorded that the one before is committed: see `members.rs`.
        self.state_dirty |= ready_batch.entries.iter().any(|entry| entry.get_entry_type() != EntryType::EntryNormal);
        self.note_entries(&ready_batch.entries);
        if let Some(first) = ready_batch.entries.first() {
            let entries = ready_batch.entries.iter().map(|entry| entry_to_wire(entry).encode_to_vec().into()).collect();
            out.streams.push(StreamOp::Append { stream: self.stream(), first_index: first.index, entries });
            writes = true;
        }
        let mut held = ready_batch.persisted_messages;
        if (ready_batch.vote_changed || self.is_vote_pending()) && !self.config.planted().lead_before_vote_is_durable {
            held.splice(0..0, ready_batch.messages);
        } else {
            ready_batch.messages.into_iter().for_each(|outgoing| self.send(outgoing, out));
        }
        if writes {
            let last = self.outstanding.back();
            assert!(
                last.is_none_or(|last| last.persist <= out.persist_id && last.number < ready_batch.number),
                "in order"
            );
            let mut messages = held.into_iter().filter_map(|outgoing| self.encode(outgoing, out)).collect();
            if self.config.planted().messages_before_persist {
                out.send.append(&mut messages);
            }
            let (persist, number) = (out.persist_id, ready_batch.number);
            out.persisting.insert(self.region.id);
            self.outstanding.push_back(Outstanding {
                persist,
                number,
                vote_changed: ready_batch.vote_changed,
                messages,
            });
        } else if self.outstanding.is_empty() {
            self.group.persisted(ready_batch.number);
            held.into_iter().for_each(|outgoing| self.send(outgoing, out));
        } else {
            self.hold(ready_batch.number, held, out);
        }
        self.confirm_reads(&ready_batch.reads);
        self.take_committed(ready_batch.committed, out);
    }

    /// Whether a changed term or vote is not durable yet.
    fn is_vote_pending(&self) -> bool {
        self.outstanding.iter().any(|outstanding| outstanding.vote_changed)
    }

    /// A batch that writes nothing itself but follows batches that are not durable yet.
    fn hold(&mut self, number: u64, messages: Vec<Outgoing>, out: &mut Outbox) {
        let vote_pending = self.is_vote_pending();
        let mut held = Vec::new();
        for outgoing in messages {
            if outgoing.kind == OutgoingKind::HeartbeatResponse && !vote_pending {
                self.send(outgoing, out);
            } else {
                held.extend(self.encode(outgoing, out));
            }
        }
        let last = self.outstanding.back_mut().expect("the caller saw one");
        assert!(last.number < number, "batches come in order");
        last.number = number;
        last.messages.extend(held);
    }

    /// Everything through `persist` is durable.
    pub fn persisted(&mut self, persist: PersistId, out: &mut Outbox) {
        self.promise.persisted(persist);
        self.members_unrecorded.take_if(|recording| *recording <= persist);
        while self.outstanding.front().is_some_and(|outstanding| outstanding.persist <= persist) {
            let outstanding = self.outstanding.pop_front().expect("just seen");
            self.group.persisted(outstanding.number);
            out.send.extend(outstanding.messages);
        }
        self.restored(out);
    }

    /// Puts the state blob beside this poll's entries, if it changed.
    pub(super) fn persist_state(&mut self, out: &mut Outbox) {
        for through_index in std::mem::take(&mut self.truncations) {
            out.streams.push(StreamOp::Truncate { stream: self.stream(), through_index });
        }
        if let Some(length) = self.promise.due_record(out.now, &self.config) {
            self.promise.record(length, out.persist_id);
            out.persisting.insert(self.region.id);
            self.state_dirty = true;
        }
        if std::mem::take(&mut self.state_dirty) {
            let mut state = self.group.state();
            (state.peer, state.made_by) = (self.me.id.0, self.made_by);
            state.promised_ns = self.promise.to_state();
            state.absorbed_by = self.absorbed_record();
            state.snapshot = self.incoming.as_ref().map(|incoming| incoming.file.to_state());
            out.streams.push(StreamOp::State { stream: self.stream(), state: encode_group_state(&state) });
        }
    }

    pub(super) fn send(&mut self, outgoing: Outgoing, out: &mut Outbox) {
        let message = self.encode(outgoing, out);
        out.send.extend(message);
    }

    /// The bytes of a message and where they go. `None` if it is sent in another way (a snapshot) or not at all (a peer
    /// that is not in the descriptor).
    fn encode(&mut self, mut outgoing: Outgoing, out: &mut Outbox) -> Option<(StoreId, Bytes)> {
        let to = self.address(outgoing.to)?;
        match outgoing.kind {
            OutgoingKind::TimeoutNow => {
                outgoing.message.transfer = self.lease.order(to.id);
                if !self.config.planted().lease_through_transfer {
                    self.slot.set_lease(None);
                }
            }
            OutgoingKind::VoteForTransfer => {
                // It campaigns in the term after its leader's; requests of an earlier campaign are obsolete.
                let of_this = |transfer: &Transfer| transfer.term + 1 == outgoing.message.term;
                outgoing.message.transfer = self.campaigned_for.filter(of_this)?.number;
            }
            _ => {}
        }
        outgoing.message.commit = outgoing.message.commit.min(self.commit_max_for(to.id));
        if outgoing.message.has_entries() && self.flow.full_followers.contains(&to.id) {
            // Treated as lost; the core repeats them after the answers to heartbeats.
            outgoing.message.entries.clear();
        }
        let is_unknown = self.group.matched(to.id) == Some(0);
        let descriptor = (self.leads() && is_unknown).then(|| RegionRecord::from(&*self.members));
        let info = outgoing.message.snapshot.clone();
        let envelope = StoreMessage {
            raft: Some(outgoing.message),
            full: self.is_full(out),
            without_data: self.waits_for_install(),
            descriptor,
            ..self.envelope(to, out)
        };
        let bytes: Bytes = envelope.encode_to_vec().into();
        match info {
            Some(info) => {
                self.send_snapshot(to, &info, bytes, out);
                None
            }
            None => Some((to.store, bytes)),
        }
    }

    /// An empty message to another peer.
    pub(super) fn envelope(&self, to: region::Peer, out: &Outbox) -> StoreMessage {
        StoreMessage {
            region: self.region.id.0,
            from_store: self.me.store.0,
            to_store: to.store.0,
            from_peer: self.me.id.0,
            to_peer: to.id.0,
            conf_version: self.members.epoch.conf_version,
            version: self.members.epoch.version,
            replicated: self.replicated_through(out.now),
            ..out.leadership.message()
        }
    }

    pub(super) fn answer_all(&self, tickets: Vec<crate::region::Ticket>, answer: &Answer, out: &mut Outbox) {
        for ticket in tickets {
            out.answer(ticket, answer.clone());
        }
    }
}
