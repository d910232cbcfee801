//! The catalogue of keyspaces.
//!
//! A change is checked when it arrives and becomes visible when it is durable. Until then another change of the same
//! keyspace is refused as busy, so no answer relies on a change that may be lost with the leader. A change whose write
//! failed, or may have failed, is written again unchanged.
//!
//! A call may arrive several times, and its change may have become durable with an earlier leader. So the same change
//! again is no other change: while it is pending the call waits for it too, and when it is durable it is the answer. A
//! creation is the same if name and nonce are equal, a change of state if the state is.
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
    waiting: Vec<Change>,
    /// Those that the write in flight makes durable.
    in_flight: Vec<Change>,
}

/// A keyspace as it becomes, and the calls that wait for it; at least one.
#[derive(Debug)]
struct Change {
    keyspace: Keyspace,
    calls: Vec<CallId>,
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
        let unknown =
            || Refusal::new(RefusalCode::UnknownKeyspace, format!("keyspace {:?} does not exist", shortened(name)));
        found.cloned().ok_or_else(unknown)
    }

    /// Keyspaces by ascending id.
    pub fn list(&self, ask: List) -> Vec<Keyspace> {
        let limit = if ask.limit == 0 { usize::MAX } else { ask.limit as usize };
        self.by_id.range(ask.first_id..).take(limit).map(|(_, keyspace)| keyspace.clone()).collect()
    }

    /// Accepts a new keyspace. `None`: the call waits until it is durable; else the same call has created it already.
    /// `capacity`: whether a call may wait.
    pub fn create(
        &mut self,
        id: CallId,
        ask: CreateKeyspace,
        capacity: Result<(), Refusal>,
        now_ms: u64,
    ) -> Result<Option<Keyspace>, Refusal> {
        let CreateKeyspace { name, nonce } = ask;
        check_name(&name)?;
        let is_same = |keyspace: &Keyspace| nonce != 0 && keyspace.nonce == nonce;
        if let Some(found) = self.ids.get(&name).and_then(|id| self.by_id.get(id)) {
            let text = format!("keyspace {name:?} exists already");
            let exists = || Refusal::new(RefusalCode::KeyspaceExists, text);
            return Some(found).filter(|found| is_same(found)).cloned().map(Some).ok_or_else(exists);
        }
        capacity?;
        if let Some(change) = self.changing().find(|change| change.keyspace.name == name) {
            if is_same(&change.keyspace) {
                change.calls.push(id);
                return Ok(None);
            }
            return Err(Refusal::new(RefusalCode::Busy, format!("keyspace {name:?} is being created; try again")));
        }
        let changing = self.changing().map(|change| change.keyspace.id).max();
        let last = self.by_id.keys().copied().next_back().max(changing).unwrap_or(0);
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
            nonce,
        };
        self.waiting.push(Change { keyspace, calls: vec![id] });
        Ok(None)
    }

    /// Accepts a change of state. `None`: the call waits until it is durable; else it is in that state already.
    /// `capacity`: whether a call may wait.
    pub fn set_state(
        &mut self,
        id: CallId,
        ask: SetKeyspaceState,
        capacity: Result<(), Refusal>,
        now_ms: u64,
    ) -> Result<Option<Keyspace>, Refusal> {
        let invalid = |text: String| Err(Refusal::new(RefusalCode::Invalid, text));
        let Some(keyspace) = self.by_id.get(&ask.id).cloned() else {
            return Err(Refusal::new(RefusalCode::UnknownKeyspace, format!("keyspace {} does not exist", ask.id)));
        };
        let Ok(state) = KeyspaceState::try_from(ask.state) else {
            return invalid(format!("a keyspace has no state {}; its states are 0 to 3", ask.state));
        };
        if let Some(change) = self.changing().find(|change| change.keyspace.id == ask.id) {
            if change.keyspace.state() == state {
                capacity?;
                change.calls.push(id);
                return Ok(None);
            }
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
        capacity?;
        let keyspace = Keyspace { state: state as i32, state_changed_ms: now_ms, ..keyspace };
        self.waiting.push(Change { keyspace, calls: vec![id] });
        Ok(None)
    }

    fn changing(&mut self) -> impl Iterator<Item = &mut Change> {
        self.in_flight.iter_mut().chain(&mut self.waiting)
    }

    /// The records to write now: until [`Catalogue::written`] or [`Catalogue::failed`] they are in flight.
    pub fn take_unwritten(&mut self) -> impl Iterator<Item = &Keyspace> {
        assert!(self.in_flight.is_empty(), "one write at a time");
        self.in_flight = std::mem::take(&mut self.waiting);
        self.in_flight.iter().map(|change| &change.keyspace)
    }

    /// What was in flight is durable; returns the calls that waited for it.
    pub fn written(&mut self) -> Vec<(CallId, Keyspace)> {
        let mut done = Vec::new();
        for Change { keyspace, calls } in std::mem::take(&mut self.in_flight) {
            done.extend(calls.into_iter().map(|id| (id, keyspace.clone())));
            self.insert(keyspace);
        }
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
        self.in_flight.iter().chain(&self.waiting).flat_map(|change| change.calls.iter().copied())
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
