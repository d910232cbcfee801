//! What clients store in placement: keyspaces and the external timestamp. Both become durable with the leader's next
//! write.

use crate::call::{Answer, CallId};
use crate::growing::Growing;
use crate::keyspaces::Catalogue;
use crate::state;
use crate::{
    Command, ExternalTimestampSet, Keyspace, KeyspaceList, LOGICAL_BITS, Outcome, Refusal, RefusalCode,
    SetExternalTimestamp,
};
use kontiki_engine::WriteBatch;

/// The records at the leader.
#[derive(Debug)]
pub(crate) struct Records {
    keyspaces: Catalogue,
    external_timestamp: Growing,
}

impl Records {
    /// The state of a new leader.
    pub fn new(keyspaces: Vec<Keyspace>, external_timestamp: u64) -> Records {
        Records { keyspaces: Catalogue::new(keyspaces), external_timestamp: Growing::new(external_timestamp) }
    }

    /// Answers, or returns `None`: then the call waits for a write. `capacity`: whether a call may wait.
    pub fn call(&mut self, id: CallId, command: Command, capacity: Result<(), Refusal>, now_ms: u64) -> Option<Answer> {
        match command {
            Command::KeyspaceByName(ask) => Some(self.keyspaces.by_name(&ask.name).map(Outcome::Keyspace)),
            Command::Keyspaces(ask) => {
                Some(Ok(Outcome::Keyspaces(KeyspaceList { keyspaces: self.keyspaces.list(ask) })))
            }
            Command::CreateKeyspace(ask) => {
                let created = self.keyspaces.create(id, ask, capacity, now_ms);
                created.map(|existing| existing.map(Outcome::Keyspace)).transpose()
            }
            Command::SetKeyspaceState(ask) => {
                let changed = self.keyspaces.set_state(id, ask, capacity, now_ms);
                changed.map(|unchanged| unchanged.map(Outcome::Keyspace)).transpose()
            }
            Command::ExternalTimestamp(_) => Some(Ok(self.external_timestamp())),
            Command::SetExternalTimestamp(ask) => self.set_external_timestamp(id, ask, capacity, now_ms),
            _ => Some(Err(Refusal::new(RefusalCode::Unsupported, "no part of placement serves this command"))),
        }
    }

    fn external_timestamp(&self) -> Outcome {
        Outcome::ExternalTimestamp(ExternalTimestampSet { timestamp: self.external_timestamp.get() })
    }

    /// The same call may arrive again, after its timestamp was set: that is success, whatever the clock of this leader
    /// says. Not recognized is one that arrives again after another caller has set a higher one: it is refused as one
    /// that goes back, although it was set in between. A client that gets this refusal reads the timestamp, which is
    /// then above its own.
    fn set_external_timestamp(
        &mut self,
        id: CallId,
        SetExternalTimestamp { timestamp }: SetExternalTimestamp,
        capacity: Result<(), Refusal>,
        now_ms: u64,
    ) -> Option<Answer> {
        let invalid = |text: String| Some(Err(Refusal::new(RefusalCode::Invalid, text)));
        let set = self.external_timestamp.get();
        if timestamp == set {
            return Some(Ok(self.external_timestamp()));
        }
        if timestamp >> LOGICAL_BITS > now_ms {
            return invalid(format!(
                "external timestamp {timestamp} lies in the future: its time is beyond {now_ms} ms"
            ));
        }
        if timestamp < set {
            return invalid(format!("external timestamp {timestamp} is below the one that is set, {set}"));
        }
        if let Err(refusal) = capacity {
            return Some(Err(refusal));
        }
        self.external_timestamp.wait_for(id, timestamp);
        None
    }

    /// Adds what has to become durable.
    pub fn plan(&mut self, batch: &mut WriteBatch) {
        self.keyspaces.take_unwritten().for_each(|keyspace| state::put_keyspace(batch, keyspace));
        if let Some(timestamp) = self.external_timestamp.take_unwritten() {
            state::put_external_timestamp(batch, timestamp);
        }
    }

    /// What was planned is durable; returns the answers that waited for it.
    pub fn written(&mut self) -> impl Iterator<Item = (CallId, Answer)> + use<> {
        let keyspaces = self.keyspaces.written().into_iter().map(|(id, found)| (id, Ok(Outcome::Keyspace(found))));
        let calls = self.external_timestamp.written();
        let set = self.external_timestamp();
        keyspaces.chain(calls.into_iter().map(move |id| (id, Ok(set.clone()))))
    }

    /// What was planned may not be durable: it is planned again.
    pub fn failed(&mut self) {
        self.keyspaces.failed();
        self.external_timestamp.failed();
    }

    /// The calls that wait.
    pub fn waiting(&self) -> impl Iterator<Item = CallId> {
        self.keyspaces.waiting().chain(self.external_timestamp.waiting())
    }
}
