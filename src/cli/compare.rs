//! `kontiki compare-replicas`: whether the replicas of regions hold the same data.

use super::remote::{Endpoint, failed};
use super::{Failure, block_on, tls};
use clap::Args;
use kontiki::client::Client;
use kontiki_env::Env;
use kontiki_proto::debugpb::RegionConsistencyCheckRequest;
use kontiki_proto::debugpb::debug_client::DebugClient;
use kontiki_proto::{Code, Status};
use kontiki_server::driver::PLACEMENT_REGION;
use kontiki_tls::Credentials;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
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
        let client = self.endpoint.client().await?;
        let credentials = self.endpoint.credentials()?;
        let mut leaders = leaders(&client).await?;
        let wanted: Vec<u64> = match self.region {
            Some(id) if leaders.contains_key(&id) => vec![id],
            Some(id) if id == PLACEMENT_REGION.0 => {
                return Err(Failure::usage(format!("region {id} is the placement group, which is not compared")));
            }
            Some(id) => return Err(Failure::usage(format!("no region {id}: see `kontiki status`"))),
            None => leaders.keys().copied().collect(),
        };
        let mut not_equal = 0;
        for id in &wanted {
            let line = match compare_region(&client, credentials.as_ref(), *id, &mut leaders).await? {
                Ok(()) => format!("region {id}: all replicas are equal"),
                Err(status) => {
                    not_equal += 1;
                    format!("region {id}: {}", status.message())
                }
            };
            writeln!(std::io::stdout().lock(), "{line}")?;
        }
        match not_equal {
            0 => Ok(()),
            _ => Err(Failure::new(format!(
                "{not_equal} of {} regions are not known to have equal replicas",
                wanted.len()
            ))),
        }
    }
}

/// The address of the leader of each region with data, if it has one.
async fn leaders(client: &Client) -> Result<BTreeMap<u64, Option<String>>, Failure> {
    let stores = client.stores().await.map_err(failed)?;
    let addresses: BTreeMap<u64, String> = stores.into_iter().map(|store| (store.id, store.address)).collect();
    let regions = client.regions().await.map_err(failed)?;
    let address = |leader: Option<u64>| addresses.get(&leader?).cloned();
    Ok(regions.into_iter().map(|region| (region.id, address(region.leader))).collect())
}

/// Asks the leader, wherever it is by then.
async fn compare_region(
    client: &Client,
    credentials: Option<&Arc<Credentials>>,
    region_id: u64,
    known: &mut BTreeMap<u64, Option<String>>,
) -> Result<Result<(), Status>, Failure> {
    let clock = Env::real().clock;
    let until = clock.monotonic() + RETRY_TIME_MAX;
    loop {
        let answer = match known.get(&region_id).and_then(Option::as_deref) {
            Some(address) => ask(address, credentials, region_id).await,
            None => Err(Status::failed_precondition("it has no leader at the moment")),
        };
        match answer {
            Err(status) if passes(&status) && clock.monotonic() < until => {
                tokio::time::sleep(PAUSE).await;
                *known = leaders(client).await?;
            }
            answer => return Ok(answer),
        }
    }
}

/// Whether the same may succeed soon: the leader has changed, or is busy with the region.
fn passes(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::ResourceExhausted)
}

async fn ask(address: &str, credentials: Option<&Arc<Credentials>>, region_id: u64) -> Result<(), Status> {
    let connected = tls::connect(address, credentials).await;
    let unanswered = |error| Status::unavailable(format!("{address} does not answer: {error}"));
    let mut node = DebugClient::new(connected.map_err(unanswered)?);
    let answer = node.region_consistency_check(RegionConsistencyCheckRequest { region_id });
    match tokio::time::timeout(ANSWER_WAIT_MAX, answer).await {
        Ok(answer) => answer.map(|_| ()),
        Err(_) => Err(Status::deadline_exceeded(format!("{address} does not answer"))),
    }
}
