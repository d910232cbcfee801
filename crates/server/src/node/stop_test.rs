use super::*;
use crate::config::ServeOptions;
use crate::connections::{ConnectionMetrics, Listener};
use futures::StreamExt;
use futures::channel::mpsc;
use kontiki_env::Env;
use kontiki_proto::pdpb::pd_client::PdClient;
use kontiki_proto::pdpb::{TsoRequest, TsoResponse};
use kontiki_proto::tikvpb::BatchCommandsRequest;
use kontiki_proto::tikvpb::tikv_client::TikvClient;
use std::future::{pending, ready};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

fn start(directory: &Path) -> Server {
    let options = ServeOptions {
        data_dir: Some(directory.to_owned()),
        grpc_address: Some("127.0.0.1:0".into()),
        status_address: Some("127.0.0.1:0".into()),
        log_bytes_max: Some(64 << 20),
        ..Default::default()
    };
    Server::start(options.resolve().unwrap()).unwrap()
}

fn client_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn connect(server: &Server) -> Channel {
    Channel::from_shared(format!("http://{}", server.config().grpc_address)).unwrap().connect().await.unwrap()
}

/// A stream of timestamps that waits for its client, after one answer.
async fn timestamps(channel: Channel) -> (mpsc::UnboundedSender<TsoRequest>, tonic::Streaming<TsoResponse>) {
    let (sender, requests) = mpsc::unbounded();
    let mut answers = PdClient::new(channel).tso(requests).await.unwrap().into_inner();
    sender.unbounded_send(TsoRequest { count: 1, ..Default::default() }).unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().count, 1);
    (sender, answers)
}

async fn last<T>(mut stream: tonic::Streaming<T>) -> Option<Status> {
    while let Some(message) = stream.next().await {
        if let Err(status) = message {
            return Some(status);
        }
    }
    None
}

/// The signal to stop, which comes from another thread.
async fn signal(receiver: blocking::Receiver<()>) {
    tokio::task::spawn_blocking(move || receiver.recv()).await.unwrap().unwrap();
}

#[test]
#[allow(clippy::disallowed_methods)] // a node that runs blocks its thread
fn streams_of_clients_end_with_a_status_and_not_with_their_connection() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path());
    let runtime = client_runtime();
    let (stop, stopped) = blocking::channel();
    let channel = runtime.block_on(connect(&server));
    let serving = std::thread::spawn(move || server.run(signal(stopped), pending()));
    runtime.block_on(async {
        let (_requests, timestamps) = timestamps(channel.clone()).await;
        let (_commands, commands) = mpsc::unbounded::<BatchCommandsRequest>();
        let batches = TikvClient::new(channel.clone()).batch_commands(commands).await.unwrap().into_inner();
        let request = HealthCheckRequest { service: String::new() };
        let health = HealthClient::new(channel).watch(request).await.unwrap().into_inner();
        stop.send(()).unwrap();
        for status in [last(timestamps).await, last(batches).await] {
            let status = status.unwrap();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.message().contains("stopping"), "{status:?}");
        }
        assert!(last(health).await.is_none());
    });
    serving.join().unwrap().unwrap();
}

#[test]
fn a_stop_that_is_hurried_cuts_a_stream_that_its_client_keeps_open() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path());
    let runtime = client_runtime();
    let (_requests, stream) = runtime.block_on(async {
        let (sender, requests) = mpsc::unbounded();
        let mut client = ServerReflectionClient::new(connect(&server).await);
        (sender, client.server_reflection_info(requests).await.unwrap().into_inner())
    });
    server.run(ready(()), ready(())).unwrap();
    assert!(runtime.block_on(last(stream)).is_some(), "it was cut");
}

/// A connection of a client that never reads, as far as the wait for clients is concerned.
#[tokio::test]
async fn the_wait_for_clients_is_bounded() {
    let clock = Env::real().clock;
    let connections = Connections::new(16, clock, ConnectionMetrics::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut listener = Listener::new(listener, connections.clone());
    let (_client, (connection, _)) = tokio::join!(TcpStream::connect(address), listener.next());
    let never = || None::<Pin<&mut std::future::Pending<()>>>;
    answer_clients(&connections, Duration::from_millis(10), never()).await;
    assert_eq!(connections.clients(), 1, "given up");
    let mut hurried = pin!(ready(()));
    answer_clients(&connections, Duration::MAX, Some(hurried.as_mut())).await;
    assert_eq!(connections.clients(), 1, "given up");

    let waiting = tokio::spawn({
        let connections: Arc<Connections> = connections.clone();
        async move { answer_clients(&connections, Duration::MAX, None::<Pin<&mut std::future::Pending<()>>>).await }
    });
    tokio::task::yield_now().await;
    drop(connection);
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_serves_on_while_a_client_has_just_connected() {
    use kontiki_env::clock::{SimClock, VirtualTime};

    let time = VirtualTime::default();
    let connections = Connections::new(16, Arc::new(SimClock::new(time.clone())), ConnectionMetrics::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut listener = Listener::new(listener, connections.clone());
    let (_client, (_connection, _)) = tokio::join!(TcpStream::connect(address), listener.next());
    // Its age does not grow on this clock.
    assert!(timeout(REDIRECT_TIME * 2, settle(&connections)).await.is_err());
    time.advance_to(CLIENT_AGE_MIN);
    settle(&connections).await;
}
