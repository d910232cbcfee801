//! On a clock that only the test moves.

use super::*;
use kontiki_env::clock::{SimClock, VirtualTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Fixture {
    listener: Listener,
    address: SocketAddr,
    time: VirtualTime,
    metrics: ConnectionMetrics,
}

async fn fixture(max: usize) -> Fixture {
    let time = VirtualTime::default();
    let metrics = ConnectionMetrics::default();
    let connections = Connections::new(max, Arc::new(SimClock::new(time.clone())), metrics.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    Fixture { listener: Listener::new(listener, connections), address, time, metrics }
}

impl Fixture {
    async fn connect(&mut self) -> (TcpStream, Connection) {
        let (client, (connection, _)) = tokio::join!(TcpStream::connect(self.address), self.listener.next());
        (client.unwrap(), connection)
    }
}

#[test]
fn a_quarter_of_the_descriptors_is_for_connections() {
    assert_eq!(connections_max(1_000, Some(1_024)), 256);
    assert_eq!(connections_max(1_000, Some(1 << 20)), 1_000);
    assert_eq!(connections_max(1_000, None), 1_000);
    assert_eq!(connections_max(1_000, Some(8)), CONNECTIONS_MIN);
}

#[tokio::test]
async fn the_longest_idle_connection_makes_room() {
    let mut fixture = fixture(2).await;
    let (mut talking, mut talked_to) = fixture.connect().await;
    let (mut silent, mut idle) = fixture.connect().await;
    fixture.time.advance_to(IDLE_MIN);
    talking.write_all(b"x").await.unwrap();
    talked_to.read_exact(&mut [0]).await.unwrap();

    // Its reader waits when it is displaced, and gets the error.
    let reader = tokio::spawn(async move { idle.read(&mut [0]).await });
    tokio::task::yield_now().await;
    let (mut newcomer, mut admitted) = fixture.connect().await;
    let error = reader.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0, "it is closed");
    newcomer.write_all(b"y").await.unwrap();
    admitted.read_exact(&mut [0]).await.unwrap();
    assert_eq!((fixture.metrics.displaced.get(), fixture.metrics.refused.get()), (1, 0));
    assert_eq!(fixture.metrics.open.get(), 2);
}

#[tokio::test]
async fn where_all_are_busy_a_newcomer_is_closed() {
    let mut fixture = fixture(1).await;
    let (mut first, mut served) = fixture.connect().await;
    let mut refused = TcpStream::connect(fixture.address).await.unwrap();
    let accepting = tokio::spawn(async move {
        let (connection, _) = fixture.listener.next().await;
        (connection, fixture.metrics)
    });
    assert_eq!(refused.read(&mut [0]).await.unwrap_or(0), 0, "closed at once");
    first.write_all(b"x").await.unwrap();
    served.read_exact(&mut [0]).await.unwrap();

    // A slot that is released is available to the next connection.
    drop(served);
    let address = first.peer_addr().unwrap();
    let _next = TcpStream::connect(address).await.unwrap();
    let (_connection, metrics) = accepting.await.unwrap();
    assert_eq!((metrics.displaced.get(), metrics.refused.get(), metrics.open.get()), (0, 1, 1));
}

#[tokio::test]
async fn connections_of_clients_are_those_that_a_stop_waits_for() {
    use tonic::transport::server::Connected;

    let mut fixture = fixture(16).await;
    let connections = fixture.listener.connections.clone();
    assert_eq!(connections.youngest_client(), None);
    connections.clients_closed().await;
    let (_client, first) = fixture.connect().await;
    fixture.time.advance_to(Duration::from_secs(3));
    let (_peer, second) = fixture.connect().await;
    fixture.time.advance_to(Duration::from_secs(4));
    assert_eq!((connections.clients(), connections.youngest_client()), (2, Some(Duration::from_secs(1))));

    let closed = tokio::spawn({
        let connections = connections.clone();
        async move { connections.clients_closed().await }
    });
    tokio::task::yield_now().await;
    drop(first);
    tokio::task::yield_now().await;
    assert!(!closed.is_finished());
    second.connect_info().mark_peer();
    closed.await.unwrap();
    assert_eq!((connections.clients(), connections.youngest_client()), (0, None));
    assert_eq!(fixture.metrics.open.get(), 1, "it is open still");

    fixture.listener = fixture.listener.for_pages();
    let (_reader, _page) = fixture.connect().await;
    assert_eq!(connections.clients(), 0);
}
