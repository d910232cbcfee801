//! Keyspaces. What is wrong with a name or a state is an error in the header, as from PD.

use super::{Pd, Result};
use crate::api::Node;
use kontiki_placement::{
    Command, CreateKeyspace, Keyspace, KeyspaceByName, Keyspaces, Outcome, Refusal, RefusalCode, SetKeyspaceState,
};
use kontiki_proto::{keyspacepb, pdpb};
use std::hash::{BuildHasher, RandomState};

impl<N: Node> Pd<N> {
    /// LoadKeyspace.
    pub async fn load_keyspace(
        &self,
        request: keyspacepb::LoadKeyspaceRequest,
    ) -> Result<keyspacepb::LoadKeyspaceResponse> {
        self.check(&request.header)?;
        let command = Command::KeyspaceByName(KeyspaceByName { name: request.name });
        let (header, keyspace) = self.keyspace(command).await?;
        Ok(keyspacepb::LoadKeyspaceResponse { header, keyspace })
    }

    /// CreateKeyspace.
    pub async fn create_keyspace(
        &self,
        request: keyspacepb::CreateKeyspaceRequest,
    ) -> Result<keyspacepb::CreateKeyspaceResponse> {
        self.check(&request.header)?;
        let command = Command::CreateKeyspace(CreateKeyspace { name: request.name, nonce: nonce() });
        let (header, keyspace) = self.keyspace(command).await?;
        Ok(keyspacepb::CreateKeyspaceResponse { header, keyspace })
    }

    /// UpdateKeyspaceState.
    pub async fn update_keyspace_state(
        &self,
        request: keyspacepb::UpdateKeyspaceStateRequest,
    ) -> Result<keyspacepb::UpdateKeyspaceStateResponse> {
        self.check(&request.header)?;
        let command = Command::SetKeyspaceState(SetKeyspaceState { id: request.id, state: request.state });
        let (header, keyspace) = self.keyspace(command).await?;
        Ok(keyspacepb::UpdateKeyspaceStateResponse { header, keyspace })
    }

    /// GetAllKeyspaces.
    pub async fn get_all_keyspaces(
        &self,
        request: keyspacepb::GetAllKeyspacesRequest,
    ) -> Result<keyspacepb::GetAllKeyspacesResponse> {
        self.check(&request.header)?;
        let command = Command::Keyspaces(Keyspaces { first_id: request.start_id, limit: request.limit });
        let list = expect!(self.demand(command).await?, Keyspaces)?;
        let keyspaces = list.keyspaces.into_iter().map(wire_keyspace).collect();
        Ok(keyspacepb::GetAllKeyspacesResponse { header: self.header(), keyspaces })
    }

    /// A header, and the keyspace unless there is an error in the header.
    async fn keyspace(
        &self,
        command: Command,
    ) -> Result<(Option<pdpb::ResponseHeader>, Option<keyspacepb::KeyspaceMeta>)> {
        match self.ask(command).await? {
            Ok(outcome) => Ok((self.header(), Some(wire_keyspace(expect!(outcome, Keyspace)?)))),
            Err(refusal) => match error_type(&refusal) {
                Some(kind) => Ok((self.header_with(kind, refusal.message), None)),
                None => Err(self.refused(&refusal)),
            },
        }
    }
}

/// Not 0, and not drawn again, in no process: a `RandomState` is seeded by the operating system.
fn nonce() -> u64 {
    RandomState::new().hash_one(()).max(1)
}

fn error_type(refusal: &Refusal) -> Option<pdpb::ErrorType> {
    match refusal.code() {
        RefusalCode::UnknownKeyspace => Some(pdpb::ErrorType::EntryNotFound),
        RefusalCode::KeyspaceExists => Some(pdpb::ErrorType::DuplicatedEntry),
        RefusalCode::Invalid => Some(pdpb::ErrorType::InvalidValue),
        _ => None,
    }
}

fn wire_keyspace(keyspace: Keyspace) -> keyspacepb::KeyspaceMeta {
    let seconds = |ms: u64| i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    keyspacepb::KeyspaceMeta {
        id: keyspace.id,
        // The numbers are the same.
        state: keyspace.state,
        created_at: seconds(keyspace.created_ms),
        state_changed_at: seconds(keyspace.state_changed_ms),
        name: keyspace.name,
    }
}

#[cfg(test)]
#[path = "keyspaces_test.rs"]
mod tests;
