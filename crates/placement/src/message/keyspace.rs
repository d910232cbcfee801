//! Keyspaces and the external timestamp: what clients store in placement.

/// The states of a keyspace. It moves forward through them, except that one that is disabled can be enabled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum KeyspaceState {
    /// In use.
    Enabled = 0,
    /// Not in use.
    Disabled = 1,
    /// Its data may be moved elsewhere.
    Archived = 2,
    /// Its data may be gone. Its id and its name are not used again.
    Tombstone = 3,
}

/// A keyspace: a name, and the id that its keys begin with.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Keyspace {
    /// Below 2^24; 0 is the keyspace `DEFAULT`.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Its name, unique for ever.
    #[prost(string, tag = "2")]
    pub name: String,
    /// A [`KeyspaceState`].
    #[prost(enumeration = "KeyspaceState", tag = "3")]
    pub state: i32,
    /// When it was created, in milliseconds since the Unix epoch; 0 for `DEFAULT`, which exists from the start.
    #[prost(uint64, tag = "4")]
    pub created_ms: u64,
    /// When its state changed, in milliseconds since the Unix epoch.
    #[prost(uint64, tag = "5")]
    pub state_changed_ms: u64,
    /// The [`CreateKeyspace::nonce`] of the call that created it; 0 if that had none.
    #[prost(uint64, tag = "6")]
    pub nonce: u64,
}

/// See [`crate::Command::KeyspaceByName`]; answered by a keyspace.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyspaceByName {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// See [`crate::Command::Keyspaces`]; answered by `KeyspaceList`, by ascending id.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Keyspaces {
    /// The lowest id.
    #[prost(uint32, tag = "1")]
    pub first_id: u32,
    /// The maximum number; 0 is unlimited.
    #[prost(uint32, tag = "2")]
    pub limit: u32,
}

/// See [`crate::Command::CreateKeyspace`]; answered by the keyspace, once it is durable.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CreateKeyspace {
    /// Its name: 1 to [`crate::KEYSPACE_NAME_BYTES_MAX`] letters, digits, `_` and `-`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Drawn at random, once per call of a client: the call may be sent several times, and what it created itself is
    /// its answer. 0: none, then a keyspace of that name is always that of another call.
    #[prost(uint64, tag = "2")]
    pub nonce: u64,
}

/// See [`crate::Command::SetKeyspaceState`]; answered by the keyspace, once that is durable.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SetKeyspaceState {
    /// The keyspace.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// The new [`KeyspaceState`].
    #[prost(enumeration = "KeyspaceState", tag = "2")]
    pub state: i32,
}

/// Keyspaces by ascending id.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyspaceList {
    /// The keyspaces.
    #[prost(message, repeated, tag = "1")]
    pub keyspaces: Vec<Keyspace>,
}

/// See [`crate::Command::ExternalTimestamp`]; answered by `ExternalTimestampSet`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ExternalTimestamp {}

/// See [`crate::Command::SetExternalTimestamp`]; answered by `ExternalTimestampSet`, once that is durable. What is set
/// already is success, so that the call may be sent several times.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SetExternalTimestamp {
    /// Not below the one that is set, and not in the future.
    #[prost(uint64, tag = "1")]
    pub timestamp: u64,
}

/// The external timestamp.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ExternalTimestampSet {
    /// 0 if none was ever set.
    #[prost(uint64, tag = "1")]
    pub timestamp: u64,
}
