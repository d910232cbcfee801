//! Two-phase commit at timestamps that the caller has chosen.

use super::Snapshot;
use super::commit::Committer;
use crate::transport::Transport;
use crate::{Error, Result, TransactionOptions};
use bytes::Bytes;
use kontiki_proto::kvrpcpb::{self, Op};

/// A change of one key, for [`crate::Client::mutate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Sets the key.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Sets a key that must not have a value.
    Insert {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Removes the key; it need not exist.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Changes nothing, but conflicts with other writers of the key.
    Lock {
        /// The key.
        key: Bytes,
    },
}

impl Mutation {
    fn into_wire(self) -> kvrpcpb::Mutation {
        let (op, key, value) = match self {
            Mutation::Put { key, value } => (Op::Put, key, value),
            Mutation::Insert { key, value } => (Op::Insert, key, value),
            Mutation::Delete { key } => (Op::Del, key, Bytes::new()),
            Mutation::Lock { key } => (Op::Lock, key, Bytes::new()),
        };
        kvrpcpb::Mutation { op: op as i32, key, value, ..Default::default() }
    }
}

/// See [`crate::Client::mutate`].
pub(crate) async fn mutate<T: Transport>(
    snapshot: Snapshot<T>,
    primary: Bytes,
    mutations: Vec<Mutation>,
    commit_ts: u64,
) -> Result<()> {
    let start_ts = snapshot.timestamp();
    let mut mutations: Vec<kvrpcpb::Mutation> = mutations.into_iter().map(Mutation::into_wire).collect();
    mutations.sort_by(|a, b| a.key.cmp(&b.key));
    let invalid = if start_ts == 0 || commit_ts <= start_ts {
        Some(format!(
            "the commit timestamp {commit_ts}: it must be above the start timestamp {start_ts}, which is not 0"
        ))
    } else if mutations.windows(2).any(|pair| pair[0].key == pair[1].key) {
        Some("a key appears in two mutations; merge them".to_string())
    } else if mutations.iter().all(|mutation| mutation.key != primary) {
        Some("the primary is not a key of the mutations; choose one of them".to_string())
    } else {
        None
    };
    if let Some(text) = invalid {
        return Err(Error::Invalid(text));
    }
    let began = snapshot.cluster.transport.now();
    let committer = Committer::new(snapshot, mutations, began, TransactionOptions::two_phases());
    committer.at(primary, commit_ts).run().await.map(drop)
}
