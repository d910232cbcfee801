//! A whole node on loopback, tested over gRPC and HTTP.

use super::*;
use crate::config::ServeOptions;
use bytes::Bytes;
use kontiki_proto::kvrpcpb::*;
use kontiki_proto::pdpb::pd_client::PdClient;
use kontiki_proto::tikvpb::tikv_client::TikvClient;
use kontiki_proto::{metapb, pdpb};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;

fn config(directory: &Path) -> ServeConfig {
    let options = ServeOptions {
        data_dir: Some(directory.to_owned()),
        grpc_address: Some("127.0.0.1:0".into()),
        status_address: Some("127.0.0.1:0".into()),
        memtable_bytes_max: Some(1 << 20),
        log_bytes_max: Some(64 << 20),
        ..Default::default()
    };
    options.resolve().unwrap()
}

/// A client's view of one region.
pub(super) struct Client {
    pub(super) channel: Channel,
    pub(super) address: SocketAddr,
    pub(super) pd: PdClient<Channel>,
    pub(super) kv: TikvClient<Channel>,
    pub(super) context: Option<Context>,
}

impl Client {
    async fn connect(server: &Server) -> Client {
        let url = format!("http://{}", server.config().grpc_address);
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        let mut pd = PdClient::new(channel.clone());
        let kv = TikvClient::new(channel.clone());
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let context = loop {
            let request = pdpb::GetRegionRequest { region_key: "a".into(), ..Default::default() };
            match pd.get_region(request).await.map(tonic::Response::into_inner) {
                Ok(pdpb::GetRegionResponse { region: Some(region), leader: Some(leader), .. }) => {
                    break context(&region, leader);
                }
                answer => assert!(tokio::time::Instant::now() < deadline, "no region with a leader: {answer:?}"),
            }
        };
        Client { channel, address: server.config().grpc_address, pd, kv, context: Some(context) }
    }
}

fn context(region: &metapb::Region, leader: metapb::Peer) -> Context {
    Context { region_id: region.id, region_epoch: region.region_epoch, peer: Some(leader), ..Default::default() }
}

/// Starts a node, does `work` with it, and stops it cleanly.
pub(super) fn with_node<W: Future<Output = ()>>(directory: &Path, work: impl FnOnce(Client, SocketAddr) -> W) {
    let server = Server::start(config(directory)).unwrap();
    let status = server.config().status_address;
    let banner = server.banner();
    assert!(banner.contains(&status.to_string()) && banner.contains(&server.config().grpc_address.to_string()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { work(Client::connect(&server).await, status).await });
    server.run_until(std::future::ready(())).unwrap();
}

async fn page(status: SocketAddr, path: &str) -> String {
    try_page(status, path).await.unwrap()
}

/// A node whose connections are all in use closes a new one at once.
pub(super) async fn try_page(status: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(status).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {status}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[test]
fn a_node_serves_and_keeps_what_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |mut client, status| {
        let put =
            RawPutRequest { context: client.context.clone(), key: "a".into(), value: "1".into(), ..Default::default() };
        assert_eq!(client.kv.raw_put(put).await.unwrap().into_inner(), RawPutResponse::default());

        let members = client.pd.get_members(pdpb::GetMembersRequest::default()).await.unwrap().into_inner();
        assert_ne!(members.header.unwrap().cluster_id, 0);
        assert_eq!(members.leader.as_ref(), members.members.first());
        let requests = futures::stream::iter([1, 64].map(|count| pdpb::TsoRequest { count, ..Default::default() }));
        let mut answers = client.pd.tso(requests).await.unwrap().into_inner();
        let first = answers.message().await.unwrap().unwrap();
        let second = answers.message().await.unwrap().unwrap();
        assert_eq!((first.count, second.count), (1, 64));
        let number = |answer: &pdpb::TsoResponse| answer.timestamp.map(|ts| (ts.physical << 18) + ts.logical);
        assert!(number(&second) >= number(&first).map(|ts| ts + 64));

        assert!(page(status, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(page(status, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(page(status, "/status").await.contains("\"store_id\":1"));
        let metrics = page(status, "/metrics").await;
        for name in [
            "kontiki_request_seconds_bucket{le=\"0.0001\",kind=\"raw_put\"}",
            "kontiki_raft_proposals_applied_total",
            "kontiki_log_sync_seconds_bucket",
            "kontiki_transport_messages_dropped_total 0",
            "kontiki_memtable_used_bytes",
            "kontiki_level_tables{family=\"default\",level=\"0\"}",
            "kontiki_log_appended_bytes_total",
        ] {
            assert!(metrics.contains(name), "{name} is missing in {metrics}");
        }
    });
    with_node(directory.path(), async |mut client, _| {
        let get = RawGetRequest { context: client.context.clone(), key: "a".into(), ..Default::default() };
        assert_eq!(client.kv.raw_get(get).await.unwrap().into_inner().value, "1");
    });
}

/// Raw calls of API version 2, and others that older versions refused, over gRPC and the engine.
#[test]
fn raw_keys_of_a_keyspace_are_apart_from_all_others_and_last_through_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let v2 = |context: &Option<Context>| {
        context.clone().map(|context| Context { api_version: ApiVersion::V2 as i32, ..context })
    };
    let key = |number: u32| Bytes::from(format!("r\0\0\x01key{number:03}"));
    let (first, end) = (Bytes::from("r\0\0\x01"), Bytes::from("r\0\0\x02"));
    with_node(directory.path(), async |mut client, _| {
        let context = v2(&client.context);
        for number in 0..10 {
            let ttl = if number == 3 { 1_000 } else { 0 };
            let (context, key, value) = (context.clone(), key(number), Bytes::from("2"));
            let put = RawPutRequest { context, key, value, ttl, ..Default::default() };
            assert_eq!(client.kv.raw_put(put).await.unwrap().into_inner(), RawPutResponse::default());
        }
        let other = RawPutRequest { context: client.context.clone(), key: key(0), ..Default::default() };
        assert_eq!(client.kv.raw_put(other).await.unwrap().into_inner(), RawPutResponse::default());
        let (start_key, end_key) = (key(5), key(8));
        let delete = RawDeleteRangeRequest { context: context.clone(), start_key, end_key, ..Default::default() };
        let deleted = client.kv.raw_delete_range(delete).await.unwrap().into_inner();
        assert_eq!(deleted, RawDeleteRangeResponse::default());
        let swap = RawCasRequest {
            context: context.clone(),
            key: key(4),
            value: "4".into(),
            previous_value: "2".into(),
            ..Default::default()
        };
        assert!(client.kv.raw_compare_and_swap(swap).await.unwrap().into_inner().succeed);
    });
    with_node(directory.path(), async |mut client, _| {
        let context = v2(&client.context);
        let (start_key, end_key) = (first.clone(), end.clone());
        let scan = RawScanRequest { context: context.clone(), start_key, end_key, limit: 100, ..Default::default() };
        let kvs = client.kv.raw_scan(scan.clone()).await.unwrap().into_inner().kvs;
        let found: Vec<_> = kvs.iter().map(|pair| pair.key.clone()).collect();
        assert_eq!(found, [0, 1, 2, 3, 4, 8, 9].map(key));
        assert_eq!(kvs[4].value, "4");
        let reverse = RawScanRequest { start_key: end.clone(), end_key: key(8), reverse: true, ..scan };
        let kvs = client.kv.raw_scan(reverse).await.unwrap().into_inner().kvs;
        assert_eq!(kvs.into_iter().map(|pair| pair.key).collect::<Vec<_>>(), [9, 8].map(key));
        let ttl = RawGetKeyTtlRequest { context: context.clone(), key: key(3), ..Default::default() };
        let ttl = client.kv.raw_get_key_ttl(ttl).await.unwrap().into_inner().ttl;
        assert!(ttl > 500 && ttl <= 1_000, "{ttl}");
        let ranges = vec![KeyRange { start_key: first.clone(), end_key: end.clone() }];
        let checksum = RawChecksumRequest { context, ranges, ..Default::default() };
        let checksum = client.kv.raw_checksum(checksum).await.unwrap().into_inner();
        assert_eq!((checksum.total_kvs, checksum.total_bytes), (7, 7 * (10 + 1)));
        let get = RawGetRequest { context: client.context.clone(), key: key(0), ..Default::default() };
        assert_eq!(client.kv.raw_get(get).await.unwrap().into_inner().value, "", "of version 1");
    });
}

#[test]
fn an_unknown_call_is_unimplemented() {
    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |client, _| {
        let mut grpc = tonic::client::Grpc::new(client.channel);
        grpc.ready().await.unwrap();
        let path = tonic::codegen::http::uri::PathAndQuery::from_static("/tikvpb.Tikv/Coprocessor");
        let codec = tonic_prost::ProstCodec::<GetRequest, GetResponse>::default();
        let status = grpc.unary(tonic::Request::new(GetRequest::default()), path, codec).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        assert!(status.message().contains("/tikvpb.Tikv/Coprocessor"), "the call is named: {status:?}");
        let path = tonic::codegen::http::uri::PathAndQuery::from_static("/unknown.Service/Call");
        let codec = tonic_prost::ProstCodec::<GetRequest, GetResponse>::default();
        grpc.ready().await.unwrap();
        let status = grpc.unary(tonic::Request::new(GetRequest::default()), path, codec).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        assert!(status.message().contains("/unknown.Service/Call"), "{status:?}");
    });
}

#[test]
fn commands_in_batches_are_answered_and_counted_like_single_calls() {
    use kontiki_proto::tikvpb::batch_commands_request::{Request, request::Cmd};
    use kontiki_proto::tikvpb::batch_commands_response::response::Cmd as Answer;
    use kontiki_proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};

    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |client, status| {
        let context = || client.context.clone();
        let put = |key: &str| RawPutRequest { context: context(), key: key.to_owned().into(), ..Default::default() };
        let get = |key: &str| RawGetRequest { context: context(), key: key.to_owned().into(), ..Default::default() };
        let batch = |commands: Vec<Cmd>| {
            let request_ids = (1..=commands.len() as u64).collect();
            let requests = commands.into_iter().map(|cmd| Request { cmd: Some(cmd) }).collect();
            BatchCommandsRequest { requests, request_ids }
        };
        // Together they are larger than a single request may be.
        let large = |key: &str| RawPutRequest { value: Bytes::from(vec![b'v'; 6 << 20]), ..put(key) };
        let puts = batch(["a", "b", "c"].map(|key| Cmd::RawPut(large(key))).to_vec());
        let gets = batch(["a", "b", "absent"].map(|key| Cmd::RawGet(get(key))).to_vec());
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let messages = futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        let mut kv = client.kv.max_decoding_message_size(32 << 20);
        let mut answers = kv.batch_commands(messages).await.unwrap().into_inner();
        for (message, is_get) in [(puts, false), (gets, true)] {
            sender.send(message).await.unwrap();
            let mut ids = Vec::new();
            while ids.len() < 3 {
                let BatchCommandsResponse { responses, request_ids, .. } = answers.message().await.unwrap().unwrap();
                for (id, response) in request_ids.into_iter().zip(responses) {
                    match response.cmd.unwrap() {
                        Answer::RawPut(answer) => assert_eq!((answer, is_get), (RawPutResponse::default(), false)),
                        Answer::RawGet(answer) => assert_eq!((answer.not_found, is_get), (id == 3, true)),
                        other => panic!("{other:?}"),
                    }
                    ids.push(id);
                }
            }
            ids.sort_unstable();
            assert_eq!(ids, [1, 2, 3]);
        }
        drop(sender);
        assert!(answers.message().await.unwrap().is_none());
        let metrics = page(status, "/metrics").await;
        let counted = metrics.lines().find(|line| line.contains("request_seconds_count{kind=\"raw_put\"}"));
        assert!(counted.is_some_and(|line| line.ends_with(" 3")), "{counted:?}");
    });
}

/// 64 KiB on the wire, 64 MiB in memory: refused before it is unpacked, by every service.
#[test]
fn a_compressed_request_is_not_unpacked_beyond_its_bound() {
    use kontiki_proto::internal::PeerBatch;
    use kontiki_proto::internal::peer_client::PeerClient;
    use tonic::codec::CompressionEncoding::Gzip;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    const UNPACKED: usize = 64 << 20;
    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |client, _| {
        let zeros = Bytes::from(vec![0; UNPACKED]);
        let mut kv = client.kv.send_compressed(Gzip);
        let put = RawPutRequest { context: client.context.clone(), value: zeros.clone(), ..Default::default() };
        let status = kv.raw_put(put).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
        let get = pdpb::GetRegionRequest { region_key: zeros.clone(), ..Default::default() };
        let status = client.pd.send_compressed(Gzip).get_region(get).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
        let service = String::from_utf8(zeros.to_vec()).unwrap();
        let mut health = HealthClient::new(client.channel.clone()).send_compressed(Gzip);
        let status = health.check(HealthCheckRequest { service }).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
        // Other nodes do not compress, so compressed messages are refused.
        let batch = PeerBatch { messages: vec![zeros], ..Default::default() };
        let mut peer = PeerClient::new(client.channel.clone()).send_compressed(Gzip);
        let status = peer.stream(futures::stream::iter([batch])).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented, "{status:?}");

        // A write that is only somewhat too large gets an error with the proposal's own bound, compressed or not.
        let value = Bytes::from(vec![0; 9 << 20]);
        let put = RawPutRequest { context: client.context, key: "k".into(), value, ..Default::default() };
        let refused = kv.raw_put(put).await.unwrap().into_inner().region_error.unwrap();
        assert!(refused.raft_entry_too_large.is_some(), "{refused:?}");
    });
}

#[test]
fn idle_connections_do_not_keep_others_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.connections_max = 16;
    let server = Server::start(config).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(TcpStream::connect(server.config().grpc_address).await.unwrap());
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let url = format!("http://{}", server.config().grpc_address);
        loop {
            let endpoint = Channel::from_shared(url.clone()).unwrap();
            let answer = match endpoint.connect().await {
                Ok(channel) => PdClient::new(channel).get_members(pdpb::GetMembersRequest::default()).await,
                Err(error) => Err(tonic::Status::unavailable(error.to_string())),
            };
            match answer {
                Ok(_) => break,
                Err(status) => assert!(tokio::time::Instant::now() < deadline, "{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let metrics = loop {
            match try_page(server.config().status_address, "/metrics").await {
                Ok(text) if text.starts_with("HTTP/1.1 200") => break text,
                other => assert!(tokio::time::Instant::now() < deadline, "{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(metrics.contains("kontiki_connections_max 16"), "{metrics}");
        assert!(!metrics.contains("kontiki_connections_displaced_total 0"), "{metrics}");
    });
    server.run_until(std::future::ready(())).unwrap();
}

#[test]
fn health_and_reflection_answer() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |client, _| {
        let mut health = HealthClient::new(client.channel.clone());
        for service in ["", "tikvpb.Tikv", "pdpb.PD"] {
            let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
            assert_eq!(answer.status, tonic_health::pb::health_check_response::ServingStatus::Serving as i32);
        }

        let list = MessageRequest::ListServices(String::new());
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
        let mut reflection = ServerReflectionClient::new(client.channel);
        let answers = reflection.server_reflection_info(futures::stream::iter([request])).await;
        let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("not a list of services: {answer:?}");
        };
        let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
        for expected in ["tikvpb.Tikv", "pdpb.PD", "grpc.health.v1.Health"] {
            assert!(names.contains(&expected), "{expected} is missing in {names:?}");
        }
    });
}

#[test]
fn a_port_in_use_is_said_plainly_before_the_directory_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(directory.path());
    config.grpc_address = taken.local_addr().unwrap();
    let error = Server::start(config).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("in use") && error.contains("--grpc-address"), "{error}");
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_directory_in_use_names_its_holder() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(config(directory.path())).unwrap();
    let error = Server::start(config(directory.path())).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("in use") && error.contains(&std::process::id().to_string()), "{error}");
    server.run_until(std::future::ready(())).unwrap();
}

/// A message that is slow to encode and to decode: it waits until others have run on the thread's runtime, or gives up.
#[derive(Clone, Default, PartialEq, Debug)]
struct Slow;

static RAN: AtomicU64 = AtomicU64::new(0);
/// One test at a time counts.
static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

fn wait_for_others() {
    let before = RAN.load(Ordering::SeqCst);
    // As long as other tasks may need on a busy machine.
    let clock = Env::real().clock;
    let deadline = clock.monotonic() + Duration::from_secs(20);
    while RAN.load(Ordering::SeqCst) < before + 10 {
        assert!(clock.monotonic() < deadline, "others wait for the message");
        std::thread::yield_now();
    }
}

impl prost::Message for Slow {
    fn encode_raw(&self, buffer: &mut impl bytes::BufMut) {
        wait_for_others();
        buffer.put_bytes(0, self.encoded_len());
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        buffer: &mut impl bytes::Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        wait_for_others();
        buffer.advance(buffer.remaining());
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        1 << 20
    }

    fn clear(&mut self) {}
}

#[test]
fn a_large_answer_that_is_being_encoded_keeps_nothing_else_waiting() {
    use tonic::codec::Codec;
    let _turn = TURN.lock();
    let runtime = super::runtime("one", 1).expect("a runtime");
    runtime.block_on(async {
        let others = tokio::spawn(async {
            loop {
                RAN.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        });
        let encoding = tokio::spawn(async {
            let encoder = kontiki_proto::codec::Codec::<Slow, Slow>::default().encoder();
            let source = futures::stream::iter([Ok(Slow)]);
            let body = tonic::codec::EncodeBody::new_server(encoder, source, None, Default::default(), None);
            axum::body::to_bytes(axum::body::Body::new(body), usize::MAX).await.expect("it is encoded").len()
        });
        assert!(encoding.await.expect("it ends") > 1 << 20);
        others.abort();
    });
}

#[test]
fn a_large_request_that_is_being_decoded_keeps_nothing_else_waiting() {
    use tonic::codec::Codec;
    let _turn = TURN.lock();
    let runtime = super::runtime("one", 1).expect("a runtime");
    runtime.block_on(async {
        let others = tokio::spawn(async {
            loop {
                RAN.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        });
        let decoding = tokio::spawn(async {
            let decoder = kontiki_proto::codec::Codec::<Slow, Slow>::default().decoder();
            // Not compressed, the length, and a message whose first field is decoded slowly.
            let length = 1_u32 << 20;
            let mut frame = vec![0];
            frame.extend(length.to_be_bytes());
            frame.resize(frame.len() + length as usize, 8);
            let body = axum::body::Body::from(frame);
            let mut messages = tonic::Streaming::new_request(decoder, body, None, None);
            messages.message().await.expect("it is decoded")
        });
        assert_eq!(decoding.await.expect("it ends"), Some(Slow));
        others.abort();
    });
}
