//! The stop of a node without an error at its clients. The steps and their reasons are in docs/internals/leadership.md,
//! "Stopping a node".

use super::{ServeError, Server};
use crate::connections::Connections;
use crate::driver::NodeHandle;
use crate::grpc::HEALTH_SERVICES;
use crate::stopping::{Stage, StopControl};
use futures::future::join_all;
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// How long a stopping node waits until other nodes lead what it led. It takes some round trips; more with thousands of
/// regions, or if another node fails at the same time. A process that is killed meanwhile loses nothing.
pub const HAND_OVER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a node serves on after it has handed over: clients that ask it for a region learn who leads it, while a
/// refused connection would not name the new leader.
pub const REDIRECT_TIME: Duration = Duration::from_secs(1);
/// No connection of a client is ended before this age. Some clients connect to the placement driver at most once a
/// second, and fail if that connection ends sooner (docs/internals/leadership.md); twice that, for a busy machine.
pub const CLIENT_AGE_MIN: Duration = Duration::from_secs(2);
/// The longest wait for both, in case clients connect all the time.
pub const SETTLE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long clients may take to get their last answers: longer than a request waits for anything (2 s) and than the
/// largest scan takes. Then their connections are cut.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// The same when the stop is hurried, or the node has failed; and for the streams of other nodes, which end at once.
const CUT_TIME_MAX: Duration = Duration::from_millis(500);

impl Server {
    /// `hurried`: do not wait any longer for other nodes and for clients. `has_failed`: nothing can be answered.
    pub(super) fn stop(self, hurried: impl Future<Output = ()>, has_failed: bool) -> Result<(), ServeError> {
        let Server { config, node, runner, health, connections, stop, listeners, runtime, requests, .. } = self;
        tracing::info!("stopping");
        let is_alone = config.node.members.len() == 1;
        runtime.block_on(async {
            health.set_service_status("", ServingStatus::NotServing).await;
            let mut hurried = pin!(hurried);
            let is_hurried = has_failed || send_clients_away(&node, &connections, is_alone, hurried.as_mut()).await;
            let drain_time_max = if is_hurried { CUT_TIME_MAX } else { DRAIN_TIME_MAX };
            stop.end(Stage::Clients);
            end_health_streams(health).await;
            answer_clients(&connections, drain_time_max, (!is_hurried).then_some(hurried)).await;
            end_peers(&stop, listeners).await;
        });
        let closed = runner.close();
        // What hangs ends with the runtime.
        runtime.shutdown_timeout(CUT_TIME_MAX);
        requests.shutdown_timeout(CUT_TIME_MAX);
        closed.map_err(ServeError::Close)
    }
}

/// Lets other nodes lead what this one leads, and serves until clients know. Returns whether it was cut short.
async fn send_clients_away(
    node: &NodeHandle,
    connections: &Connections,
    is_alone: bool,
    hurried: Pin<&mut impl Future<Output = ()>>,
) -> bool {
    let left = || node.status().regions.iter().filter(|region| region.leading_term.is_some()).count();
    let sent_away = async {
        if timeout(HAND_OVER_TIME_MAX, node.stop_leading()).await.is_err() {
            let regions = left();
            tracing::warn!(regions, "no other node took over within {HAND_OVER_TIME_MAX:?}: stopping as leader");
        }
        if !is_alone {
            let _ = timeout(SETTLE_TIME_MAX, settle(connections)).await;
        }
    };
    tokio::select! {
        () = sent_away => false,
        () = hurried => {
            tracing::warn!(regions = left(), "asked again: stopping at once, as the leader of these regions");
            true
        }
    }
}

/// Done when clients have had the time to learn of other leaders, and none has connected a moment ago.
async fn settle(connections: &Connections) {
    sleep(REDIRECT_TIME).await;
    while let Some(age) = connections.youngest_client().filter(|age| *age < CLIENT_AGE_MIN) {
        sleep(CLIENT_AGE_MIN - age).await;
    }
}

/// Streams that report health to a client have no messages to answer: they end when what they report does not exist.
async fn end_health_streams(mut health: HealthReporter) {
    for service in HEALTH_SERVICES {
        health.clear_service_status(service).await;
    }
}

/// Waits until the connections of clients have ended, each after its last answer.
async fn answer_clients(
    connections: &Connections,
    time_max: Duration,
    hurried: Option<Pin<&mut impl Future<Output = ()>>>,
) {
    let hurried = async {
        match hurried {
            Some(hurried) => hurried.await,
            None => std::future::pending().await,
        }
    };
    let cut = tokio::select! {
        () = connections.clients_closed() => return,
        () = hurried => "asked again",
        () = sleep(time_max) => "clients took too long to read their answers, or to end their streams",
    };
    tracing::warn!(connections = connections.clients(), after = ?time_max, "cutting connections of clients: {cut}");
}

/// Ends the streams of other nodes, and waits until their connections have ended. Not sooner: over them come the
/// answers to calls of clients that this node forwarded.
async fn end_peers(stop: &StopControl, listeners: Vec<JoinHandle<()>>) {
    stop.end(Stage::Peers);
    let _ = timeout(CUT_TIME_MAX, join_all(listeners)).await;
}

#[cfg(test)]
#[path = "stop_test.rs"]
mod tests;
