//! The first call on a connection to another node: which version of the protocol to use. See `version.rs`.

use super::version::{Known, NoCommonVersion, Versions};
use super::{CONNECT_TIMEOUT, Identity, connect, describe_status};
use kontiki_proto::Code;
use kontiki_proto::internal::peer_client::PeerClient;
use kontiki_proto::internal::{NegotiateReply, NegotiateRequest};
use kontiki_raftstore::StoreId;
use kontiki_tls::Credentials;
use std::sync::Arc;
use tokio::time::timeout;
use tonic::transport::Channel;

/// Characters that are kept of the version of another store's program: it is only shown.
const PROGRAM_CHARS_MAX: usize = 32;

/// Connects to another store, and agrees with it on a version.
pub(super) async fn dial(
    from: Identity,
    to: StoreId,
    address: &str,
    credentials: Option<&Arc<Credentials>>,
) -> Result<(PeerClient<Channel>, u32), String> {
    let mut client = connect(address, credentials).await?;
    let version = ask(&mut client, from, to).await?;
    Ok((client, version))
}

async fn ask(client: &mut PeerClient<Channel>, from: Identity, to: StoreId) -> Result<u32, String> {
    let own = Known::own(from);
    let request = NegotiateRequest {
        cluster_id: from.cluster_id,
        from_store: from.store_id.0,
        to_store: to.0,
        version_min: from.versions.min,
        version_max: from.versions.max,
        program: own.program.clone(),
    };
    let answer = timeout(CONNECT_TIMEOUT, client.negotiate(request)).await;
    let other = match answer.map_err(|_| "it accepts connections and does not answer")? {
        Ok(reply) => {
            let NegotiateReply { version_min: min, version_max: max, program } = reply.into_inner();
            Known { store: to, program: shortened(&program), versions: Versions { min, max } }
        }
        // A release that does not know the call.
        Err(status) if status.code() == Code::Unimplemented => {
            Known { store: to, program: String::new(), versions: Versions::BEFORE }
        }
        Err(status) => return Err(describe_status(&status)),
    };
    own.common(&other).map_err(|error| error.to_string())
}

/// The answer to another store's question.
pub(super) fn answer(own: Identity, request: &NegotiateRequest) -> Result<NegotiateReply, NoCommonVersion> {
    let own = Known::own(own);
    let versions = Versions { min: request.version_min, max: request.version_max };
    let store = StoreId(request.from_store);
    own.common(&Known { store, program: shortened(&request.program), versions })?;
    Ok(NegotiateReply { version_min: own.versions.min, version_max: own.versions.max, program: own.program })
}

fn shortened(program: &str) -> String {
    program.chars().take(PROGRAM_CHARS_MAX).collect()
}

#[cfg(test)]
#[path = "negotiate_test.rs"]
mod tests;
