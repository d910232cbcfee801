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
use std::collections::{BTreeMap, BTreeSet};
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
        let mut leaders = Leaders { known: find_leaders(&client).await?, ..Leaders::default() };
        let wanted: Vec<u64> = match self.region {
            Some(id) if leaders.known.contains_key(&id) => vec![id],
            Some(id) if id == PLACEMENT_REGION.0 => {
                return Err(Failure::usage(format!("region {id} is the placement group, which is not compared")));
            }
            Some(id) => return Err(Failure::usage(format!("no region {id}: see `kontiki status`"))),
            None => leaders.known.keys().copied().collect(),
        };
        let mut not_equal = 0;
        // A store that is down causes the same text for all of its regions.
        let mut reported: BTreeMap<String, u64> = BTreeMap::new();
        for id in &wanted {
            let line = match compare_region(&client, credentials.as_ref(), *id, &mut leaders).await? {
                Ok(()) => format!("region {id}: all replicas are equal"),
                Err(why) => {
                    not_equal += 1;
                    let first = *reported.entry(why.clone()).or_insert(*id);
                    if first == *id { format!("region {id}: {why}") } else { format!("region {id}: as region {first}") }
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

/// Where regions are led.
#[derive(Default)]
struct Leaders {
    /// The leader of each region with data, if it has one.
    known: BTreeMap<u64, Option<Leader>>,
    /// Stores that gave no answer for as long as a region is tried: they are not waited for again.
    silent: BTreeSet<u64>,
}

#[derive(Clone)]
struct Leader {
    store: u64,
    address: String,
}

/// Why a region was not found equal.
enum Refused {
    /// The leader does not answer: there may be another one soon.
    Silent(u64, String),
    By(Status),
}

impl Refused {
    /// Whether the same may succeed soon: the leader has changed, or is busy with the region.
    fn passes(&self, silent: &BTreeSet<u64>) -> bool {
        match self {
            Refused::Silent(store, _) => !silent.contains(store),
            Refused::By(status) => matches!(status.code(), Code::FailedPrecondition | Code::ResourceExhausted),
        }
    }
}

async fn find_leaders(client: &Client) -> Result<BTreeMap<u64, Option<Leader>>, Failure> {
    let stores = client.stores().await.map_err(failed)?;
    let addresses: BTreeMap<u64, String> = stores.into_iter().map(|store| (store.id, store.address)).collect();
    let regions = client.regions().await.map_err(failed)?;
    let leader = |store: Option<u64>| Some(Leader { store: store?, address: addresses.get(&store?)?.clone() });
    Ok(regions.into_iter().map(|region| (region.id, leader(region.leader))).collect())
}

/// Asks the leader, wherever it is by then; returns why its replicas are not known to be equal.
async fn compare_region(
    client: &Client,
    credentials: Option<&Arc<Credentials>>,
    region_id: u64,
    leaders: &mut Leaders,
) -> Result<Result<(), String>, Failure> {
    let clock = Env::real().clock;
    let until = clock.monotonic() + RETRY_TIME_MAX;
    loop {
        let answer = match leaders.known.get(&region_id).and_then(Option::as_ref) {
            Some(leader) => ask(leader, credentials, region_id).await,
            None => Err(Refused::By(Status::failed_precondition("it has no leader at the moment"))),
        };
        match answer {
            Ok(()) => return Ok(Ok(())),
            Err(refused) if refused.passes(&leaders.silent) && clock.monotonic() < until => {
                tokio::time::sleep(PAUSE).await;
                leaders.known = find_leaders(client).await?;
            }
            Err(Refused::By(status)) => return Ok(Err(status.message().to_owned())),
            Err(Refused::Silent(store, why)) => {
                leaders.silent.insert(store);
                return Ok(Err(why));
            }
        }
    }
}

async fn ask(leader: &Leader, credentials: Option<&Arc<Credentials>>, region_id: u64) -> Result<(), Refused> {
    let Leader { store, address } = leader;
    let silent = |why: &str| {
        let why = format!("its leader, store {store} at {address}, does not answer ({why}); is that node running?");
        Refused::Silent(*store, why)
    };
    let connected = tls::connect(address, credentials).await;
    let mut node = DebugClient::new(connected.map_err(|error| silent(&error.to_string()))?);
    let answer = node.region_consistency_check(RegionConsistencyCheckRequest { region_id });
    match tokio::time::timeout(ANSWER_WAIT_MAX, answer).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(Refused::By(status)),
        Err(_) => Err(silent("no answer in time")),
    }
}
