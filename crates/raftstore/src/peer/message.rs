//! Messages from other peers.

use super::Peer;
use crate::consensus::step::Stepped;
use crate::consensus::wire::StoreMessage;
use crate::outbox::Outbox;
use crate::region::{self, PeerId, StoreId};

impl Peer {
    /// The sender, if the envelope is one of a peer of this region to this replica.
    pub fn sender(&self, envelope: &StoreMessage) -> Option<region::Peer> {
        let ours = envelope.to_peer == self.me.id.0 && envelope.to_store == self.me.store.0;
        let from = region::Peer { id: PeerId(envelope.from_peer), store: StoreId(envelope.from_store) };
        (ours && from.id != self.me.id && self.region.peers.contains(&from)).then_some(from)
    }

    /// Takes a message other than a snapshot's.
    pub fn message(&mut self, from: region::Peer, envelope: StoreMessage, out: &mut Outbox) {
        let Some(raft) = envelope.raft else { return };
        if raft.is_snapshot() {
            // It must come with its file.
            return;
        }
        if self.is_silent() && raft.is_vote_request() && !raft.is_for_transfer() {
            return;
        }
        match self.group.step(from.id, raft, &self.region) {
            Stepped::Taken(ack) => {
                if let Some(ack) = ack {
                    self.confirm_lease(ack, out.now);
                }
                if self.group.leader() == Some(from.id) {
                    self.learn_replicated(envelope.replicated);
                }
            }
            Stepped::Ignored => {}
            Stepped::Refused(why) => {
                tracing::error!(region = self.region.id.0, from = from.store.0, why, "a message was refused");
            }
        }
    }
}
