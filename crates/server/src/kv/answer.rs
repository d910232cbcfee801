//! Errors, as messages of the wire protocol.

use super::txn_convert::{key_error, plain_abort};
use crate::driver::NodeError;
use bytes::Bytes;
use kontiki_proto::{errorpb, kvrpcpb, metapb};
use kontiki_raftstore::{Peer, Region, RegionError};
use kontiki_txn::{Failure, KeyError};

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It did not reach the data: the client routes it again, or waits.
    Region(Box<errorpb::Error>),
    /// An error of the transaction protocol. Never empty.
    Keys(Vec<KeyError>),
    /// The request was invalid, or the store failed; the text says which.
    Text(String),
    /// A write that may or may not have happened: clients get the error that their command is stale, as from TiKV.
    /// Transactional clients repeat the request, because each of their writes may be repeated unchanged. Raw clients
    /// repeat the write or report it, as they choose: a repeated put could undo another client's put in between, so the
    /// node does not repeat it.
    Unknown(String),
}

impl Refusal {
    /// What it says to people.
    pub(super) fn into_text(self) -> String {
        match self {
            Refusal::Region(error) => error.message,
            Refusal::Keys(errors) => in_words(&errors),
            Refusal::Text(text) | Refusal::Unknown(text) => text,
        }
    }
}

impl From<NodeError> for Refusal {
    fn from(error: NodeError) -> Refusal {
        let message = error.to_string();
        let region = match error {
            NodeError::Region(error) => return Refusal::Region(Box::new(region_error(&error))),
            NodeError::Busy(_) | NodeError::Late => {
                errorpb::Error { server_is_busy: Some(busy(&message)), ..with(message) }
            }
            NodeError::DiskFull => errorpb::Error { disk_full: Some(errorpb::DiskFull {}), ..with(message) },
            // An error with only a text sends clients to another replica, which is right when this one stops.
            NodeError::Stopped(_) | NodeError::Timeout => with(message),
            NodeError::Undetermined | NodeError::DiskFullUndetermined => return Refusal::Unknown(message),
            NodeError::Engine(_) => return Refusal::Text(message),
        };
        Refusal::Region(Box::new(region))
    }
}

impl From<kontiki_engine::Error> for Refusal {
    fn from(error: kontiki_engine::Error) -> Refusal {
        Refusal::Text(error.to_string())
    }
}

impl From<Failure<NodeError>> for Refusal {
    fn from(failure: Failure<NodeError>) -> Refusal {
        match failure {
            Failure::Keys(errors) => Refusal::Keys(errors),
            Failure::Replicated(error) => error.into(),
            Failure::NoTimestamp(error) => {
                let max_timestamp_not_synced = Some(errorpb::MaxTimestampNotSynced {});
                let message = format!("the leader needs a timestamp for its first such commit: {error}; try again");
                Refusal::Region(Box::new(errorpb::Error { max_timestamp_not_synced, ..with(message) }))
            }
            other => Refusal::Text(other.to_string()),
        }
    }
}

pub(super) fn with(message: String) -> errorpb::Error {
    errorpb::Error { message, ..Default::default() }
}

fn stale(message: String) -> errorpb::Error {
    errorpb::Error { stale_command: Some(errorpb::StaleCommand {}), ..with(message) }
}

fn busy(reason: &str) -> errorpb::ServerIsBusy {
    errorpb::ServerIsBusy { reason: reason.to_owned(), ..Default::default() }
}

/// A region error on the wire.
pub(super) fn region_error(error: &RegionError) -> errorpb::Error {
    let mut wire = with(error.to_string());
    match error {
        RegionError::NotLeader { region, leader } => {
            let leader = leader.map(wire_peer);
            wire.not_leader = Some(errorpb::NotLeader { region_id: region.0, leader });
        }
        RegionError::RegionNotFound { region } => {
            wire.region_not_found = Some(errorpb::RegionNotFound { region_id: region.0 });
        }
        RegionError::KeyNotInRegion { key, region, start_key, end_key } => {
            wire.key_not_in_region = Some(errorpb::KeyNotInRegion {
                key: key.clone(),
                region_id: region.0,
                start_key: start_key.clone(),
                end_key: end_key.clone(),
            });
        }
        RegionError::EpochNotMatch { current } => {
            let current_regions = current.iter().map(wire_region).collect();
            wire.epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
        }
        RegionError::StoreNotMatch { requested, actual } => {
            wire.store_not_match =
                Some(errorpb::StoreNotMatch { request_store_id: requested.0, actual_store_id: actual.0 });
        }
        RegionError::EntryTooLarge { region, bytes, .. } => {
            wire.raft_entry_too_large = Some(errorpb::RaftEntryTooLarge { region_id: region.0, entry_size: *bytes });
        }
        RegionError::ServerIsBusy { reason, .. } => wire.server_is_busy = Some(busy(reason)),
        RegionError::DataIsNotReady { region, peer, safe_ts } => {
            let (region_id, peer_id, safe_ts) = (region.0, peer.0, *safe_ts);
            wire.data_is_not_ready = Some(errorpb::DataIsNotReady { region_id, peer_id, safe_ts });
        }
        RegionError::StaleCommand => wire.stale_command = Some(errorpb::StaleCommand {}),
        // A newer kind: its text sends clients to another replica, which is always valid.
        _ => {}
    }
    wire
}

/// A replica on the wire.
pub(crate) fn wire_peer(peer: Peer) -> metapb::Peer {
    metapb::Peer { id: peer.id.0, store_id: peer.store.0, ..Default::default() }
}

pub(super) fn wire_region(region: &Region) -> metapb::Region {
    metapb::Region {
        id: region.id.0,
        start_key: region.start_key.clone(),
        end_key: region.end_key.clone(),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: region.epoch.conf_version, version: region.epoch.version }),
        peers: region
            .peers
            .iter()
            .map(|peer| metapb::Peer { role: region.role(peer.id) as i32, ..wire_peer(*peer) })
            .collect(),
    }
}

/// Whether an error is transient (it ends within about a second) and the request had no effect.
pub(super) fn is_transient(error: &NodeError) -> bool {
    matches!(
        error,
        NodeError::Busy(_)
            | NodeError::Region(RegionError::ServerIsBusy { .. } | RegionError::NotLeader { leader: None, .. })
    )
}

/// A pair of a result.
pub(super) fn pair(key: Bytes, value: Bytes) -> kvrpcpb::KvPair {
    kvrpcpb::KvPair { key, value, ..Default::default() }
}

/// The reply that a refusal becomes, by the style of the reply's errors in the table of calls. Every style has a region
/// error, which is alone.
macro_rules! refuse {
    (text, $reply:ident, $refusal:expr) => {
        match $refusal {
            Refusal::Text(error) => kvrpcpb::$reply { error, ..Default::default() },
            Refusal::Keys(errors) => kvrpcpb::$reply { error: in_words(&errors), ..Default::default() },
            Refusal::Region(error) => kvrpcpb::$reply { region_error: Some(*error), ..Default::default() },
            Refusal::Unknown(text) => kvrpcpb::$reply { region_error: Some(stale(text)), ..Default::default() },
        }
    };
    (key, $reply:ident, $refusal:expr) => {
        match $refusal {
            Refusal::Text(text) => kvrpcpb::$reply { error: Some(plain_abort(text)), ..Default::default() },
            Refusal::Keys(errors) => kvrpcpb::$reply { error: errors.first().map(key_error), ..Default::default() },
            Refusal::Region(error) => kvrpcpb::$reply { region_error: Some(*error), ..Default::default() },
            Refusal::Unknown(text) => kvrpcpb::$reply { region_error: Some(stale(text)), ..Default::default() },
        }
    };
    (keys, $reply:ident, $refusal:expr) => {
        match $refusal {
            Refusal::Text(text) => kvrpcpb::$reply { errors: vec![plain_abort(text)], ..Default::default() },
            Refusal::Keys(errors) => {
                kvrpcpb::$reply { errors: errors.iter().map(key_error).collect(), ..Default::default() }
            }
            Refusal::Region(error) => kvrpcpb::$reply { region_error: Some(*error), ..Default::default() },
            Refusal::Unknown(text) => kvrpcpb::$reply { region_error: Some(stale(text)), ..Default::default() },
        }
    };
    // Only a region error can be said: its text sends clients elsewhere, and they report it in the end.
    (none, $reply:ident, $refusal:expr) => {
        match $refusal {
            Refusal::Text(text) => kvrpcpb::$reply { region_error: Some(with(text)), ..Default::default() },
            Refusal::Keys(errors) => {
                kvrpcpb::$reply { region_error: Some(with(in_words(&errors))), ..Default::default() }
            }
            Refusal::Region(error) => kvrpcpb::$reply { region_error: Some(*error), ..Default::default() },
            Refusal::Unknown(text) => kvrpcpb::$reply { region_error: Some(stale(text)), ..Default::default() },
        }
    };
    // Clients retry for seconds after a region error, so an error that a retry does not resolve is put into a pair,
    // where clients read it at once.
    (pairs $pairs:ident, $reply:ident, $refusal:expr) => {
        match $refusal {
            Refusal::Text(text) | Refusal::Unknown(text) => {
                kvrpcpb::$reply { $pairs: vec![refused_pair(text)], ..Default::default() }
            }
            Refusal::Keys(errors) => {
                kvrpcpb::$reply { $pairs: vec![refused_pair(in_words(&errors))], ..Default::default() }
            }
            Refusal::Region(error) => kvrpcpb::$reply { region_error: Some(*error), ..Default::default() },
        }
    };
}

macro_rules! refusals {
    ($($call:ident, $function:ident, $handler:ident, $request:ident, $reply:ident, $path:literal, $effect:ident,
       $($errors:ident)+;)+) => {$(
        impl From<Refusal> for kvrpcpb::$reply {
            fn from(refusal: Refusal) -> Self {
                refuse!($($errors)+, $reply, refusal)
            }
        }
    )+};
}

kontiki_proto::for_each_kv_call!(refusals);

/// Errors of a transaction where the answer holds only a text.
fn in_words(errors: &[KeyError]) -> String {
    errors.iter().map(KeyError::to_string).collect::<Vec<_>>().join("; ")
}

fn refused_pair(text: String) -> kvrpcpb::KvPair {
    kvrpcpb::KvPair { error: Some(Box::new(plain_abort(text))), ..Default::default() }
}
