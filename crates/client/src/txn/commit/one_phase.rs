//! A commit in one phase.

use super::Committer;
use super::protocol::Protocol;
use crate::backoff::Backoff;
use crate::keys::Mode;
use crate::reply::locks_of;
use crate::transport::Transport;
use crate::{Error, Result};
use kontiki_proto::calls::KvPrewrite;

/// What came of it.
pub(super) enum OnePhase {
    /// Committed at this timestamp.
    Committed(u64),
    /// The server has written ordinary locks.
    Declined,
    /// The keys are not in one region any more, and nothing was sent that may have been executed.
    SeveralRegions,
}

impl<T: Transport> Committer<T> {
    /// Sends all mutations in one request until it is answered. A repetition finds what the first one did, as long as
    /// all keys are in one region. If that is split after an answer was lost, its parts would be prewritten over
    /// records of a commit: the failure leads to the transaction's being settled first.
    pub(super) async fn one_phase(&self, protocol: &Protocol, backoff: &mut Backoff<T>) -> Result<OnePhase> {
        let cluster = &self.snapshot.cluster;
        let mut waiting = None;
        loop {
            let Some(region) = cluster.one_region(Mode::Txn, &self.mutations, backoff).await? else {
                if backoff.is_uncertain() {
                    let text = "its region was split while the answer to its commit was lost";
                    return Err(Error::RolledBack(text.to_string()));
                }
                return Ok(OnePhase::SeveralRegions);
            };
            let request = self.prewrite_request(&self.mutations, protocol);
            let Some(reply) = cluster.call_region::<KvPrewrite>(&region, request, backoff).await? else { continue };
            if reply.errors.is_empty() {
                return Ok(match reply.one_pc_commit_ts {
                    0 => OnePhase::Declined,
                    commit_ts => OnePhase::Committed(commit_ts),
                });
            }
            self.clear(&locks_of(reply.errors)?, &mut waiting, backoff).await?;
        }
    }
}
