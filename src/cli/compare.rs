//! `kontiki compare-replicas`: whether the replicas of regions hold the same data.

use super::remote::Endpoint;
use super::{Failure, block_on};
use clap::Args;
use kontiki::client::RegionInfo;
use kontiki_env::Env;
use kontiki_proto::debugpb::RegionConsistencyCheckRequest;
use kontiki_proto::debugpb::debug_client::DebugClient;
use kontiki_proto::{Code, Status};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// How long a region is tried while its leader changes, or is busy with it.
const RETRY_TIME_MAX: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(200);
/// Longer than a leader waits for the other replicas.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(360);

/// Arguments of `kontiki compare-replicas`.
#[derive(Args, Debug)]
pub struct CompareReplicas {
    /// Only this region, by its number in `kontiki status` [default: every region with data]
    #[arg(long, value_name = "ID")]
    region: Option<u64>,
    #[command(flatten)]
    endpoint: Endpoint,
}

impl CompareReplicas {
    /// Compares one region after the other; fails if replicas differ, or could not be compared.
    pub fn run(self) -> Result<(), Failure> {
        block_on(self.compare())
    }

    async fn compare(self) -> Result<(), Failure> {
        let mut known = self.regions().await?;
        let wanted: Vec<u64> = match self.region {
            Some(id) if known.contains_key(&id) => vec![id],
            Some(id) => return Err(Failure::usage(format!("no region {id}: see `kontiki status`"))),
            None => known.keys().copied().collect(),
        };
        let mut failed = 0;
        for id in &wanted {
            let line = match self.compare_region(*id, &mut known).await? {
                Ok(()) => format!("region {id}: all replicas are equal"),
                Err(status) => {
                    failed += 1;
                    format!("region {id}: {}", status.message())
                }
            };
            writeln!(std::io::stdout().lock(), "{line}")?;
        }
        match failed {
            0 => Ok(()),
            _ => {
                Err(Failure::new(format!("{failed} of {} regions are not known to have equal replicas", wanted.len())))
            }
        }
    }

    /// Regions with data, by id.
    async fn regions(&self) -> Result<BTreeMap<u64, RegionInfo>, Failure> {
        Ok(self.endpoint.regions().await?.into_iter().map(|region| (region.id, region)).collect())
    }

    /// Asks the leader, wherever it is by then.
    async fn compare_region(
        &self,
        region_id: u64,
        known: &mut BTreeMap<u64, RegionInfo>,
    ) -> Result<Result<(), Status>, Failure> {
        let clock = Env::real().clock;
        let until = clock.monotonic() + RETRY_TIME_MAX;
        loop {
            let leader = known.get(&region_id).and_then(|region| region.leader);
            let answer = match leader {
                Some(store) => ask(&self.endpoint.address_of(store).await?, region_id).await,
                None => Err(Status::failed_precondition("it has no leader at the moment")),
            };
            match answer {
                Err(status) if passes(&status) && clock.monotonic() < until => {
                    tokio::time::sleep(PAUSE).await;
                    *known = self.regions().await?;
                }
                answer => return Ok(answer),
            }
        }
    }
}

/// Whether the same may succeed soon: the leader has changed, or is busy with the region.
fn passes(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::ResourceExhausted)
}

async fn ask(address: &str, region_id: u64) -> Result<(), Status> {
    let connected = DebugClient::connect(format!("http://{address}")).await;
    let mut node = connected.map_err(|error| Status::unavailable(format!("{address} does not answer: {error}")))?;
    let answer = node.region_consistency_check(RegionConsistencyCheckRequest { region_id });
    match tokio::time::timeout(ANSWER_WAIT_MAX, answer).await {
        Ok(answer) => answer.map(|_| ()),
        Err(_) => Err(Status::deadline_exceeded(format!("{address} does not answer"))),
    }
}
