//! Errors, classified by what the caller can do: redirect, wait, report an unknown outcome, give up.

use kontiki_engine::Error as EngineError;
use kontiki_raftstore::{ConfigError, RecoverError, RegionError, StoreId};
use std::io;
use std::path::PathBuf;

/// Why a request through a [`super::NodeHandle`] failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// It had no effect and will have none: send it to another node or again, as the error says.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// It had no effect: too many requests wait already. Try again later.
    #[error("this node is busy: {0}")]
    Busy(&'static str),
    /// It had no effect: this node's disk is full. Reads continue, and writes resume once there is free space.
    #[error("the disk of this node is full; free some space and writes resume by themselves")]
    DiskFull,
    /// The disk became full during this write: it takes effect when there is free space again, or never.
    #[error(
        "the disk of this node is full; this write was in progress and may take effect when there is free space again"
    )]
    DiskFullUndetermined,
    /// A write whose outcome is unknown: it may take effect later, or never.
    #[error("the outcome of this write is unknown: the region lost its leader before the outcome was known")]
    Undetermined,
    /// The deadline passed. The change that a placement call asked for may have happened.
    #[error("no answer from placement in time")]
    Timeout,
    /// It had no effect: the caller's deadline passed while the request waited.
    #[error("deadline is exceeded: the request waited longer than its limit, and was not begun")]
    Late,
    /// The engine refused: an argument out of range, or a broken disk.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The node has stopped, or is stopping. A write in progress has an unknown outcome.
    #[error("this node has stopped: {0}")]
    Stopped(String),
}

impl From<EngineError> for OpenError {
    fn from(error: EngineError) -> OpenError {
        match error {
            EngineError::Corruption { .. } => OpenError::Corrupt(error),
            error => OpenError::Engine(error),
        }
    }
}

impl From<kontiki_raftlog::OpenError> for OpenError {
    fn from(error: kontiki_raftlog::OpenError) -> OpenError {
        match error {
            kontiki_raftlog::OpenError::Engine(error) => error.into(),
            error => OpenError::RaftLog(error),
        }
    }
}

/// Why a checksum was not computed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoChecksum {
    /// The data cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Those who compare it do not wait any more.
    #[error("it was not computed in time")]
    Late,
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory.
    #[error(transparent)]
    Engine(EngineError),
    /// The directory belongs to another node or another cluster.
    #[error(
        "{directory} belongs to store {found_store} of cluster {found_cluster}, but this node was started as store \
         {store} of cluster {cluster}; start it with the --store-id and the --initial-cluster (or --cluster-id) that it \
         had, without which the id is derived from the list of nodes, or with another --data-dir"
    )]
    Identity {
        /// The directory.
        directory: PathBuf,
        /// The cluster it belongs to.
        found_cluster: u64,
        /// The store it is.
        found_store: StoreId,
        /// The configured cluster.
        cluster: u64,
        /// The configured store.
        store: StoreId,
    },
    /// The list of nodes names members that were not there when the directory's cluster was formed.
    #[error(
        "{directory} belongs to a cluster that was formed by stores {formed:?}, but --initial-cluster names stores \
         {strangers:?} among its first members, too: a cluster keeps the members that formed it. Start this node with the \
         list that it had (a node that was started alone: with none), and see docs/guide/serving.md, From one node to \
         three, for a larger cluster"
    )]
    OtherMembers {
        /// The directory.
        directory: PathBuf,
        /// The members that it knows.
        formed: Vec<u64>,
        /// The others.
        strangers: Vec<u64>,
    },
    /// The list of nodes lacks stores with replicas of the directory's regions.
    #[error(
        "the regions in {directory} have replicas on stores {stores:?} too, of which --initial-cluster gives no address: \
         start this node with the list that it had"
    )]
    NoAddress {
        /// The directory.
        directory: PathBuf,
        /// Those stores.
        stores: Vec<u64>,
    },
    /// The directory is damaged.
    #[error(
        "{0}. In a cluster start this node with an empty directory and --replace-lost-directory \
         (docs/guide/replace-a-disk.md); what `kontiki repair` saves can be served as a one-node store"
    )]
    Corrupt(EngineError),
    /// A directory with data that belong to no cluster can only become a single-node store: other members would not
    /// have the data.
    #[error(
        "{directory} holds data but not the identity of a member: it was written by an embedded database, copied, \
         restored or repaired. It can be served as a one-node store, but it cannot start as one of {members} initial \
         members; to replace a member's lost directory, start with an empty one and --replace-lost-directory (docs/guide/replace-a-disk.md)"
    )]
    EmbeddedData {
        /// The directory.
        directory: PathBuf,
        /// The configured number of members.
        members: usize,
    },
    /// The data differ from those of the other replicas.
    #[error(
        "{directory} cannot be served: {what}. Start this node with an empty directory and --replace-lost-directory \
         (docs/guide/replace-a-disk.md), and keep this one only to find out why; without its file {mark} it would be \
         served as it is"
    )]
    Inconsistent {
        /// The directory.
        directory: PathBuf,
        /// What was found.
        what: String,
        /// The file that marks it.
        mark: &'static str,
    },
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The raft logs cannot be used, or not be moved.
    #[error(transparent)]
    RaftLog(kontiki_raftlog::OpenError),
    /// The replicated state in the directory cannot be used.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The snapshots' folder cannot be used.
    #[error("{path}: {error}")]
    Snapshots {
        /// The path.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

/// Describes the generation that another store has recorded of a directory that is in generation `own`.
fn recorded_generation(own: u64, known: u64) -> String {
    match own == known {
        // Both copies were started once more after the copy was made.
        true => "another copy in that generation, which was started earlier".to_string(),
        false => format!("generation {known}"),
    }
}

/// Why a running node stopped by itself. The process should report it and exit with a code that is not 0.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// The engine accepts no more writes (a failed sync, corruption).
    #[error("the storage engine failed while it {doing}: {error}")]
    Engine {
        /// What was being done.
        doing: &'static str,
        /// The engine's error.
        error: EngineError,
    },
    /// Continuing could make replicas differ.
    #[error("replication met a fault: {0}")]
    Fault(#[from] kontiki_raftstore::Fault),
    /// The directory is an older copy of this store's directory: it lacks votes and acknowledged entries.
    #[error(
        "{directory} is an older copy of store {store}'s directory: it is in generation {own}, and store {by} has \
         recorded {}. Writes acknowledged since then are missing here, so it must not vote. Start the node with the newer directory, or \
         replace the disk: see docs/guide/replace-a-disk.md",
        recorded_generation(*own, *known)
    )]
    OutdatedDirectory {
        /// The directory.
        directory: PathBuf,
        /// This store.
        store: StoreId,
        /// The store that knows a later generation.
        by: StoreId,
        /// The directory's generation.
        own: u64,
        /// The generation that the other store has recorded.
        known: u64,
    },
    /// Another directory has replaced this store's directory.
    #[error(
        "{directory} was given up: store {by} knows another directory that has replaced it as store {store}'s. Its \
         replicas are replaced and the cluster cannot use it any more; delete it, or move it away: see \
         docs/guide/replace-a-disk.md"
    )]
    ReplacedDirectory {
        /// The directory.
        directory: PathBuf,
        /// This store.
        store: StoreId,
        /// The store that knows it.
        by: StoreId,
    },
    /// The cluster was recovered without this store.
    #[error(
        "{directory} was given up: store {store} was stated to be lost for good, and store {by} was recovered without it \
         (kontiki unsafe-recovery). The cluster cannot use this directory any more. It may hold writes that the cluster lacks, so \
         move it away and keep it: see docs/guide/lose-a-majority.md"
    )]
    LostStore {
        /// The directory.
        directory: PathBuf,
        /// This store.
        store: StoreId,
        /// The store that was recovered.
        by: StoreId,
    },
    /// Two directories that are left say something different of lost stores.
    #[error(
        "{directory} says that stores {own:?} are lost, but that of store {by} says {theirs:?}. Stop all nodes and run \
         `kontiki unsafe-recovery --number {number}` with the same --lost-stores on every directory that is left: see \
         docs/guide/lose-a-majority.md"
    )]
    LostStoresDiffer {
        /// The directory.
        directory: PathBuf,
        /// The store of the other directory.
        by: StoreId,
        /// What this directory says.
        own: Vec<u64>,
        /// What that one says.
        theirs: Vec<u64>,
        /// The number by which both can say the same.
        number: u64,
    },
    /// The first state of the cluster was written and cannot be recovered.
    #[error("the cluster was formed, and its first state cannot be read: {0}")]
    Formation(String),
    /// The placement group's state cannot be read.
    #[error("placement cannot start to lead: {0}")]
    Placement(String),
}
