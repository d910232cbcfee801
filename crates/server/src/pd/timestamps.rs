//! Timestamps besides the stream of them.

use super::{Pd, Result};
use crate::api::Node;
use kontiki_placement::{Command, ExternalTimestamp, Outcome, RefusalCode, SetExternalTimestamp};
use kontiki_proto::pdpb;

impl<N: Node> Pd<N> {
    /// GetMinTS: a new timestamp, since there is one oracle.
    pub async fn get_min_ts(&self, request: pdpb::GetMinTsRequest) -> Result<pdpb::GetMinTsResponse> {
        self.check(&request.header)?;
        let timestamp = Some(self.timestamps(1).await?);
        Ok(pdpb::GetMinTsResponse { header: self.header(), timestamp })
    }

    /// GetExternalTimestamp.
    pub async fn get_external_timestamp(
        &self,
        request: pdpb::GetExternalTimestampRequest,
    ) -> Result<pdpb::GetExternalTimestampResponse> {
        self.check(&request.header)?;
        let command = Command::ExternalTimestamp(ExternalTimestamp {});
        let set = expect!(self.demand(command).await?, ExternalTimestamp)?;
        Ok(pdpb::GetExternalTimestampResponse { header: self.header(), timestamp: set.timestamp })
    }

    /// SetExternalTimestamp: never backwards, nor into the future.
    pub async fn set_external_timestamp(
        &self,
        request: pdpb::SetExternalTimestampRequest,
    ) -> Result<pdpb::SetExternalTimestampResponse> {
        self.check(&request.header)?;
        let command = Command::SetExternalTimestamp(SetExternalTimestamp { timestamp: request.timestamp });
        let header = match self.ask(command).await? {
            Ok(outcome) => expect!(outcome, ExternalTimestamp).map(|_| self.header())?,
            Err(refusal) if refusal.code() == RefusalCode::Invalid => {
                self.header_with(pdpb::ErrorType::InvalidValue, refusal.message)
            }
            Err(refusal) => return Err(self.refused(&refusal)),
        };
        Ok(pdpb::SetExternalTimestampResponse { header })
    }
}

#[cfg(test)]
#[path = "timestamps_test.rs"]
mod tests;
