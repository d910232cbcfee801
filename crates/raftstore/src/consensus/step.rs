//! Messages in and out of a group: conversion between the wire's types and the raft crate's, and the checks that keep
//! a message which no correct peer sends from making the core panic.

use super::log::ENTRY_OVERHEAD_BYTES;
use super::wire::{RaftMessage, SnapshotInfo};
use super::{Group, Outgoing, OutgoingKind, entry_from_wire, entry_to_wire};
use crate::region::{PeerId, Region};
use bytes::Bytes;
use protobuf::RepeatedField;
use raft::eraftpb::{Entry, Message, MessageType, Snapshot};
use std::time::Duration;

/// Terms and indices beyond this come from no correct peer; below it the core's additions cannot overflow.
const NUMBER_MAX: u64 = 1 << 60;
/// The raft crate's mark of a vote that a leader's transfer asked for.
const TRANSFER_CONTEXT: &[u8] = b"CampaignTransfer";
/// Bytes of each number that precedes the raft crate's context in heartbeats and their answers.
const STAMP_BYTES: usize = 8;

/// The answer to a heartbeat: which peer confirmed the leadership, as of the time when the heartbeat was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatAck {
    pub from: PeerId,
    /// By the leader's clock.
    pub sent_at: Duration,
    /// The follower knows the leader's transfers through this number to be void.
    pub void_through: u64,
    /// For how long, from a moment after `sent_at` on, the follower votes for no other replica.
    pub promise: Duration,
}

/// Names a transfer of leadership: the term of the leader that ordered it, and its number in that term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub term: u64,
    pub number: u64,
}

/// The result of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// Taken. A heartbeat's answer names the send time of its heartbeat.
    Taken(Option<HeartbeatAck>),
    /// Not for this group at the moment; it is ignored. Normal after faults.
    Ignored,
    /// No correct peer sends this; it is ignored.
    Refused(&'static str),
}

fn message_type(kind: u32) -> Option<MessageType> {
    use MessageType::*;
    // Only messages between peers; proposals, reads and transfers are not forwarded between peers.
    let allowed = [
        MsgAppend,
        MsgAppendResponse,
        MsgRequestVote,
        MsgRequestVoteResponse,
        MsgSnapshot,
        MsgHeartbeat,
        MsgHeartbeatResponse,
        MsgTimeoutNow,
        MsgRequestPreVote,
        MsgRequestPreVoteResponse,
    ];
    allowed.into_iter().find(|allowed| *allowed as u32 == kind)
}

/// Turns one of the core's messages into ours.
pub(super) fn outgoing(mut message: Message, now: Duration, void_through: u64) -> Outgoing {
    let kind = match message.get_msg_type() {
        MessageType::MsgSnapshot => OutgoingKind::Snapshot,
        MessageType::MsgTimeoutNow => OutgoingKind::TimeoutNow,
        MessageType::MsgHeartbeatResponse => OutgoingKind::HeartbeatResponse,
        MessageType::MsgRequestVote if message.context == TRANSFER_CONTEXT => OutgoingKind::VoteForTransfer,
        _ => OutgoingKind::Other,
    };
    let mut context = message.take_context();
    if message.get_msg_type() == MessageType::MsgHeartbeat {
        context = [&nanoseconds(now)[..], &void_through.to_be_bytes(), &context].concat().into();
    }
    let info = match kind {
        OutgoingKind::Snapshot => {
            let info = <SnapshotInfo as prost::Message>::decode(message.take_snapshot().take_data());
            Some(info.expect("Group::offer_snapshot encoded it"))
        }
        _ => None,
    };
    let wire = RaftMessage {
        kind: message.get_msg_type() as u32,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.take_entries().iter().map(entry_to_wire).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot: info,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context,
        priority: message.priority,
        transfer: 0,
    };
    Outgoing { to: PeerId(message.to), message: wire, kind }
}

impl RaftMessage {
    /// Whether this asks for a vote.
    pub fn is_vote_request(&self) -> bool {
        let kind = message_type(self.kind);
        matches!(kind, Some(MessageType::MsgRequestVote | MessageType::MsgRequestPreVote))
    }

    /// The transfer of leadership for which this asks for a vote, as the message says.
    pub fn vote_for_transfer(&self) -> Option<Transfer> {
        let asked = self.is_vote_request() && self.context == TRANSFER_CONTEXT;
        // A candidate asks in the term after that of the leader that ordered the transfer.
        asked.then(|| Transfer { term: self.term.saturating_sub(1), number: self.transfer })
    }

    /// Turns a vote request for a transfer into an ordinary one.
    pub fn forget_transfer(&mut self) {
        self.context = Bytes::new();
    }

    /// The transfer of leadership for which this orders to campaign.
    pub fn order_to_campaign(&self) -> Option<Transfer> {
        let ordered = message_type(self.kind) == Some(MessageType::MsgTimeoutNow);
        ordered.then_some(Transfer { term: self.term, number: self.transfer })
    }

    /// A leader's order to campaign at once.
    pub fn campaign_now(term: u64) -> RaftMessage {
        RaftMessage { kind: MessageType::MsgTimeoutNow as u32, term, ..RaftMessage::default() }
    }

    /// Through which number the leader's transfers are void, if this is a heartbeat.
    pub fn heartbeat_void_through(&self) -> Option<u64> {
        let is_heartbeat = message_type(self.kind) == Some(MessageType::MsgHeartbeat);
        is_heartbeat
            .then(|| split_number(self.context.clone()))
            .flatten()
            .and_then(|(_, rest)| split_number(rest))
            .map(|(void_through, _)| void_through)
    }

    /// Bytes of the entries that this would add to a log which ends at `last_index`; `None` if it is no append, or one
    /// that does not begin there: that one repeats or replaces entries, or is refused.
    pub fn extends(&self, last_index: u64) -> Option<usize> {
        let appends = message_type(self.kind) == Some(MessageType::MsgAppend) && self.index == last_index;
        let bytes =
            || self.entries.iter().map(|entry| entry.data.len() + entry.context.len() + ENTRY_OVERHEAD_BYTES).sum();
        (appends && !self.entries.is_empty()).then(bytes)
    }

    /// Whether an append at the log's end brings the first entry of its leader's term, or what is before it: until the
    /// follower has that, nothing that it holds can be committed by this leader.
    pub fn precedes_first_of_term(&self) -> bool {
        self.log_term < self.term
    }

    /// Whether this is an append with entries.
    pub fn has_entries(&self) -> bool {
        message_type(self.kind) == Some(MessageType::MsgAppend) && !self.entries.is_empty()
    }

    /// The answer of a store that has no log for the replica which this leader's message is for: that it is empty. No
    /// later answer can contradict it, so no state has to be kept.
    pub fn answer_of_an_empty_log(&self) -> Option<RaftMessage> {
        let (kind, reject) = match message_type(self.kind)? {
            MessageType::MsgAppend => (MessageType::MsgAppendResponse, true),
            MessageType::MsgHeartbeat => (MessageType::MsgHeartbeatResponse, false),
            _ => return None,
        };
        let promise = nanoseconds(Duration::ZERO);
        let context = if reject { Bytes::new() } else { [&promise[..], &self.context].concat().into() };
        let index = if reject { self.index } else { 0 };
        Some(RaftMessage { kind: kind as u32, term: self.term, index, reject, context, ..RaftMessage::default() })
    }

    /// Whether this is a leader's heartbeat.
    pub fn is_heartbeat(&self) -> bool {
        message_type(self.kind) == Some(MessageType::MsgHeartbeat)
    }

    /// Whether this is a follower's answer to a heartbeat or to an append that it has taken.
    pub fn is_answer_to_leader(&self) -> bool {
        let kind = message_type(self.kind);
        let answers = matches!(kind, Some(MessageType::MsgHeartbeatResponse | MessageType::MsgAppendResponse));
        answers && !self.reject
    }

    /// Whether this announces a snapshot file.
    pub fn is_snapshot(&self) -> bool {
        message_type(self.kind) == Some(MessageType::MsgSnapshot)
    }
}

impl Group {
    /// Takes a message from `from`, a peer of the group. `region` is the descriptor that a snapshot contains, `promise`
    /// the promise that the answer to a heartbeat makes.
    pub fn step(&mut self, from: PeerId, message: RaftMessage, region: &Region, promise: Duration) -> Stepped {
        let Some(kind) = message_type(message.kind) else {
            return Stepped::Refused("a message of a kind not for peers");
        };
        if let Err(why) = self.check(kind, &message) {
            return Stepped::Refused(why);
        }
        if self.is_restoring() && matches!(kind, MessageType::MsgTimeoutNow | MessageType::MsgSnapshot) {
            return Stepped::Ignored;
        }
        if kind == MessageType::MsgTimeoutNow && self.would_lead_too_early() {
            return Stepped::Ignored;
        }
        let term = message.term;
        let (core, ack) = match self.to_core(from, kind, message, region, promise) {
            Ok(converted) => converted,
            Err(why) => return Stepped::Refused(why),
        };
        // While it asks for a snapshot the core answers no heartbeats, and continues to ask a leader of a later term,
        // whose log may end before the index that it asks for. Both must be prevented: the lease needs the answers, and
        // the request needs an index that is in the log.
        let asked_for = self.node.raft.pending_request_snapshot;
        if term > self.term() || kind == MessageType::MsgHeartbeat {
            self.node.raft.pending_request_snapshot = raft::INVALID_INDEX;
        }
        let before = self.term();
        let allowance = self.allowance(&core);
        self.node.store().set_allowance(allowance);
        let stepped = self.within_window(Some(from.0), |group| group.node.step(core));
        self.node.store().set_allowance(usize::MAX);
        if kind == MessageType::MsgHeartbeat && before == self.term() {
            self.node.raft.pending_request_snapshot = asked_for;
        }
        if stepped.is_err() {
            return Stepped::Ignored;
        }
        self.set_timeout();
        Stepped::Taken(ack.filter(|_| term == self.term()))
    }

    fn check(&self, kind: MessageType, message: &RaftMessage) -> Result<(), &'static str> {
        let numbers = [
            message.term,
            message.log_term,
            message.index,
            message.commit,
            message.commit_term,
            message.request_snapshot,
            message.reject_hint,
        ];
        if numbers.into_iter().any(|number| number > NUMBER_MAX) || message.term == 0 {
            return Err("a message with an impossible number");
        }
        match kind {
            MessageType::MsgAppend => self.check_append(message),
            MessageType::MsgHeartbeat if message.term >= self.term() && message.commit > self.last_index() => {
                Err("a leader counts on entries that this peer does not have; its log lost some")
            }
            MessageType::MsgAppendResponse
                if !message.reject && message.term == self.term() && message.index > self.last_index() =>
            {
                Err("a follower claims entries that its leader does not have")
            }
            MessageType::MsgSnapshot => self.check_snapshot(message),
            _ => Ok(()),
        }
    }

    fn check_snapshot(&self, message: &RaftMessage) -> Result<(), &'static str> {
        let Some(info) = &message.snapshot else { return Err("a snapshot message without a snapshot") };
        if info.index == 0 || info.term == 0 || info.index > NUMBER_MAX || info.term > message.term {
            return Err("a snapshot of an impossible position");
        }
        if info.index == self.committed() && self.term_at(info.index).is_some_and(|own| own != info.term) {
            return Err("a snapshot that contradicts a committed entry");
        }
        Ok(())
    }

    fn check_append(&self, message: &RaftMessage) -> Result<(), &'static str> {
        // No log begins before position (1, 1). To the core term 0 is also that of an entry which is not there, and
        // would match beyond the end of the log.
        if message.log_term == 0 {
            return Err("an append that follows no entry");
        }
        let mut term = message.log_term;
        for (entry, index) in message.entries.iter().zip(message.index + 1..) {
            if entry.index != index || entry.term < term || entry.term > message.term {
                return Err("an append whose entries are out of order");
            }
            term = entry.term;
        }
        if message.term < self.term() || message.index < self.committed() {
            return Ok(());
        }
        if message.index == self.committed() {
            return match self.term_at(message.index) {
                Some(own) if own != message.log_term => Err("an append that contradicts a committed entry"),
                _ => Ok(()),
            };
        }
        Ok(())
    }

    fn to_core(
        &self,
        from: PeerId,
        kind: MessageType,
        message: RaftMessage,
        region: &Region,
        promise: Duration,
    ) -> Result<(Message, Option<HeartbeatAck>), &'static str> {
        let mut core = Message::default();
        core.set_msg_type(kind);
        core.from = from.0;
        core.to = self.node.raft.id;
        core.term = message.term;
        core.log_term = message.log_term;
        core.index = message.index;
        let entries: Result<Vec<Entry>, _> = message.entries.into_iter().map(entry_from_wire).collect();
        core.set_entries(RepeatedField::from_vec(entries?));
        core.commit = message.commit;
        core.commit_term = message.commit_term;
        core.request_snapshot = message.request_snapshot;
        core.reject = message.reject;
        core.reject_hint = message.reject_hint;
        core.priority = message.priority;
        if let Some(info) = &message.snapshot {
            let mut snapshot = Snapshot::default();
            let metadata = snapshot.mut_metadata();
            metadata.index = info.index;
            metadata.term = info.term;
            metadata.set_conf_state(super::conf_state(&self.recovery.counted(region)));
            core.set_snapshot(snapshot);
        }
        // The core returns a heartbeat's context in its answer, so the promise travels in front of it; the leader takes
        // off what was put there.
        let (context, ack) = match kind {
            MessageType::MsgHeartbeat => ([&nanoseconds(promise)[..], &message.context].concat().into(), None),
            MessageType::MsgHeartbeatResponse => split_ack(from, message.context),
            _ => (message.context, None),
        };
        core.context = context;
        Ok((core, ack))
    }
}

fn nanoseconds(time: Duration) -> [u8; STAMP_BYTES] {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_be_bytes()
}

fn split_number(mut context: Bytes) -> Option<(u64, Bytes)> {
    let number = u64::from_be_bytes(*context.first_chunk::<STAMP_BYTES>()?);
    Some((number, context.split_off(STAMP_BYTES)))
}

/// What an answer to a heartbeat says, and the core's own context. One that is too short confirms nothing.
fn split_ack(from: PeerId, context: Bytes) -> (Bytes, Option<HeartbeatAck>) {
    let split = || {
        let (promise, rest) = split_number(context)?;
        let (sent_at, rest) = split_number(rest)?;
        let (void_through, rest) = split_number(rest)?;
        let [promise, sent_at] = [promise, sent_at].map(Duration::from_nanos);
        Some((rest, Some(HeartbeatAck { from, sent_at, void_through, promise })))
    };
    split().unwrap_or_default()
}
