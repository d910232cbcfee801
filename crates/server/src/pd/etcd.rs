//! The calls of etcd that Go clients make to the placement service, which is an etcd in PD.
//!
//! There is one key: the transaction safe point, below which no transaction continues, as decimal digits; it is absent
//! while that is 0. Its revision is the safe point itself, which changes exactly when the value does, so the store
//! needs no counter for it. All other keys are absent.

use super::{Pd, PdError, Result};
use crate::api::Node;
use bytes::Bytes;
use kontiki_placement::{Command, GcState, Outcome};
use kontiki_proto::etcdserverpb;

/// Clients read it every ten seconds, and serve no read for long without it.
pub const SAFE_POINT_KEY: &[u8] = b"/tidb/store/gcworker/saved_safe_point";

impl<N: Node> Pd<N> {
    fn etcd_header(&self, revision: i64) -> Option<etcdserverpb::ResponseHeader> {
        let (cluster_id, member_id) = (self.node.cluster_id(), self.node.store_id().0);
        Some(etcdserverpb::ResponseHeader { cluster_id, member_id, revision, raft_term: 1 })
    }

    async fn saved_safe_point(&self) -> Result<u64> {
        Ok(expect!(self.demand(Command::GcState(GcState {})).await?, GcPoints)?.txn_safe_point)
    }

    /// KV/Range.
    pub async fn etcd_range(&self, request: etcdserverpb::RangeRequest) -> Result<etcdserverpb::RangeResponse> {
        let safe_point = self.saved_safe_point().await?;
        let revision = revision(safe_point);
        if request.revision != 0 && request.revision != revision {
            let text = format!("only the present revision, {revision}, can be read, not {}", request.revision);
            return Err(PdError::Invalid(text));
        }
        let is_found = safe_point != 0 && is_in_range(SAFE_POINT_KEY, &request.key, &request.range_end);
        let mut response = etcdserverpb::RangeResponse {
            header: self.etcd_header(revision),
            count: is_found.into(),
            ..Default::default()
        };
        if is_found && !request.count_only {
            let value = if request.keys_only { Bytes::new() } else { safe_point.to_string().into() };
            response.kvs.push(etcdserverpb::KeyValue {
                key: Bytes::from_static(SAFE_POINT_KEY),
                create_revision: 1,
                mod_revision: revision,
                version: 1,
                value,
            });
        }
        Ok(response)
    }

    /// Cluster/MemberList. Clients connect to these addresses instead of those they had.
    pub async fn etcd_members(&self) -> Result<etcdserverpb::MemberListResponse> {
        let info = self.cluster_info().await?;
        let members = info.members.iter().map(|info| super::member(self.scheme, info));
        let members = members.map(|member| etcdserverpb::Member {
            id: member.member_id,
            name: member.name,
            peer_ur_ls: member.peer_urls,
            client_ur_ls: member.client_urls,
            is_learner: false,
        });
        let members = members.collect();
        let header = self.etcd_header(revision(self.saved_safe_point().await?));
        Ok(etcdserverpb::MemberListResponse { header, members })
    }
}

/// The revision of the present state; an etcd that was never written is at 1.
fn revision(safe_point: u64) -> i64 {
    i64::try_from(safe_point).unwrap_or(i64::MAX).max(1)
}

/// The ranges of etcd: one key, `[key, end)`, or, with an end of one zero byte, all from the key on.
fn is_in_range(found: &[u8], key: &[u8], end: &[u8]) -> bool {
    match end {
        [] => found == key,
        [0] => found >= key,
        end => (key..end).contains(&found),
    }
}

#[cfg(test)]
#[path = "etcd_test.rs"]
mod tests;
