//! The catalogue of keyspaces.
//!
//! A change is checked when it arrives and becomes visible when it is durable. Until then another change of the same
//! keyspace is refused as busy, so no answer relies on a change that may be lost with the leader. A change whose write
//! failed, or may have failed, is written again unchanged.
//!
//! Keyspaces are never deleted: an id or a name that is used again would give old keys to a new owner.

use crate::call::CallId;
use crate::{CreateKeyspace, Keyspace, KeyspaceState, Keyspaces as List, Refusal, RefusalCode, SetKeyspaceState};
use std::collections::BTreeMap;

/// The keyspace that always exists, with id 0.
pub const KEYSPACE_DEFAULT: &str = "DEFAULT";
/// The maximum number of keyspaces. Each is a record in memory and in the state that a new leader loads.
pub const KEYSPACES_MAX: usize = 10_000;
/// The longest name of a keyspace, as in PD.
pub const KEYSPACE_NAME_BYTES_MAX: usize = 20;
/// Keys hold an id in three bytes, and the two highest ones have other meanings in TiKV.
const ID_MAX: u32 = (1 << 24) - 3;

/// The keyspaces of the cluster.
#[derive(Debug)]
pub(crate) struct Catalogue {
    /// Durable.
    by_id: BTreeMap<u32, Keyspace>,
    ids: BTreeMap<String, u32>,
    /// Accepted changes that no write has begun to make durable.
    waiting: Vec<(CallId, Keyspace)>,
    /// Those that the write in flight makes durable.
    in_flight: Vec<(CallId, Keyspace)>,
}

impl Catalogue {
    /// The state of a new leader.
    pub fn new(keyspaces: Vec<Keyspace>) -> Catalogue {
        let mut catalogue =
            Catalogue { by_id: BTreeMap::new(), ids: BTreeMap::new(), waiting: Vec::new(), in_flight: Vec::new() };
        catalogue.insert(Keyspace { name: KEYSPACE_DEFAULT.into(), ..Keyspace::default() });
        keyspaces.into_iter().for_each(|keyspace| catalogue.insert(keyspace));
        catalogue
    }

    fn insert(&mut self, keyspace: Keyspace) {
        self.ids.insert(keyspace.name.clone(), keyspace.id);
        self.by_id.insert(keyspace.id, keyspace);
    }

    /// A keyspace by its name.
    pub fn by_name(&self, name: &str) -> Result<Keyspace, Refusal> {
        let found = self.ids.get(name).and_then(|id| self.by_id.get(id));
        let unknown = || Refusal::new(RefusalCode::UnknownKeyspace, format!("keyspace {name:?} does not exist"));
        found.cloned().ok_or_else(unknown)
    }

    /// Keyspaces by ascending id.
    pub fn list(&self, ask: List) -> Vec<Keyspace> {
        let limit = if ask.limit == 0 { usize::MAX } else { ask.limit as usize };
        self.by_id.range(ask.first_id..).take(limit).map(|(_, keyspace)| keyspace.clone()).collect()
    }

    /// Accepts a new keyspace; the call waits until it is durable.
    pub fn create(&mut self, id: CallId, ask: CreateKeyspace, now_ms: u64) -> Result<(), Refusal> {
        let name = ask.name;
        check_name(&name)?;
        if self.ids.contains_key(&name) {
            let text = format!("keyspace {name:?} exists already");
            return Err(Refusal::new(RefusalCode::KeyspaceExists, text));
        }
        if self.changing().any(|keyspace| keyspace.name == name) {
            return Err(Refusal::new(RefusalCode::Busy, format!("keyspace {name:?} is being created; try again")));
        }
        let last = self.by_id.keys().copied().chain(self.changing().map(|keyspace| keyspace.id)).max().unwrap_or(0);
        if self.by_id.len() + self.waiting.len() + self.in_flight.len() >= KEYSPACES_MAX || last >= ID_MAX {
            let text = format!("a cluster has at most {KEYSPACES_MAX} keyspaces");
            return Err(Refusal::new(RefusalCode::Busy, text));
        }
        let keyspace = Keyspace {
            id: last + 1,
            name,
            state: KeyspaceState::Enabled as i32,
            created_ms: now_ms,
            state_changed_ms: now_ms,
        };
        self.waiting.push((id, keyspace));
        Ok(())
    }

    /// Accepts a change of state. `None`: the call waits until it is durable; else it is in that state already.
    pub fn set_state(&mut self, id: CallId, ask: SetKeyspaceState, now_ms: u64) -> Result<Option<Keyspace>, Refusal> {
        let invalid = |text: String| Err(Refusal::new(RefusalCode::Invalid, text));
        let Some(keyspace) = self.by_id.get(&ask.id).cloned() else {
            return Err(Refusal::new(RefusalCode::UnknownKeyspace, format!("keyspace {} does not exist", ask.id)));
        };
        let Ok(state) = KeyspaceState::try_from(ask.state) else {
            return invalid(format!("a keyspace has no state {}; its states are 0 to 3", ask.state));
        };
        if self.changing().any(|changing| changing.id == ask.id) {
            let text = format!("keyspace {:?} is being changed; try again", keyspace.name);
            return Err(Refusal::new(RefusalCode::Busy, text));
        }
        let before = keyspace.state();
        if before == state {
            return Ok(Some(keyspace));
        }
        if keyspace.id == 0 {
            return invalid(format!("keyspace {KEYSPACE_DEFAULT} is always enabled"));
        }
        if !may_follow(before, state) {
            return invalid(format!("keyspace {:?} is {before:?} and cannot become {state:?}", keyspace.name));
        }
        self.waiting.push((id, Keyspace { state: state as i32, state_changed_ms: now_ms, ..keyspace }));
        Ok(None)
    }

    fn changing(&self) -> impl Iterator<Item = &Keyspace> {
        self.in_flight.iter().chain(&self.waiting).map(|(_, keyspace)| keyspace)
    }

    /// The records to write now: until [`Catalogue::written`] or [`Catalogue::failed`] they are in flight.
    pub fn take_unwritten(&mut self) -> impl Iterator<Item = &Keyspace> {
        assert!(self.in_flight.is_empty(), "one write at a time");
        self.in_flight = std::mem::take(&mut self.waiting);
        self.in_flight.iter().map(|(_, keyspace)| keyspace)
    }

    /// What was in flight is durable; returns the calls that waited for it.
    pub fn written(&mut self) -> Vec<(CallId, Keyspace)> {
        let done = std::mem::take(&mut self.in_flight);
        done.iter().for_each(|(_, keyspace)| self.insert(keyspace.clone()));
        done
    }

    /// The write failed, or its outcome is unknown: it is repeated.
    pub fn failed(&mut self) {
        let later = std::mem::take(&mut self.waiting);
        self.waiting = std::mem::take(&mut self.in_flight);
        self.waiting.extend(later);
    }

    /// The calls that wait.
    pub fn waiting(&self) -> impl Iterator<Item = CallId> {
        self.in_flight.iter().chain(&self.waiting).map(|(id, _)| *id)
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=KEYSPACE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed) {
        return Ok(());
    }
    let rule = format!("a name has 1 to {KEYSPACE_NAME_BYTES_MAX} letters, digits, underscores and hyphens");
    Err(Refusal::new(RefusalCode::Invalid, format!("{:?} is no name of a keyspace: {rule}", shortened(name))))
}

/// As much of a name as belongs into a text.
fn shortened(name: &str) -> String {
    name.chars().take(2 * KEYSPACE_NAME_BYTES_MAX).collect()
}

fn may_follow(before: KeyspaceState, after: KeyspaceState) -> bool {
    use KeyspaceState::{Archived, Disabled, Enabled, Tombstone};
    matches!((before, after), (Enabled, Disabled) | (Disabled, Enabled | Archived) | (Archived, Tombstone))
}

#[cfg(test)]
#[path = "keyspaces_test.rs"]
mod tests;
