#!/usr/bin/env bash
# tikv-client 0.4.0 (crates.io): `Transaction::commit` and `RawClient::batch_put` report success although nothing was
# sent, when the placement driver answers the look-up of a key's region without a region.
#
# What happens: a placement driver here answers GetMembers and Tso as usual, and GetRegion with a header and no region,
# which the real one does while no region of the key is known to it. The client repeats the look-up ten times within
# milliseconds. Its error then ends up in the list of what has to be sent as "nothing to send": the plan of prewrite,
# commit and of raw batches takes a failed list of regions for an empty one. No store exists, and none is needed for the
# answers "committed" and "written". `RawClient::put`, which is sent to a single region, returns the error.
#
# A look-up that fails with a gRPC status ends the same way after ten tries, but each try then takes the time of the
# server's answer. A server is kind to this client if it waits for the region, and fails, instead of answering at once
# that there is none.
#
# Seen with: tikv-client 0.4.0, rustc 1.90 or later. Output:
#   GetRegion for commit: 20 look-ups, all without a region
#   commit: Ok, with a commit timestamp
#   batch_put: Ok
#   put: Err(RegionForKeyNotFound)
#
# Needs: cargo, and access to crates.io. Exit code: 0 if the behaviour is as described, 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
tikv-client = "=0.4.0"
tokio = { version = "1", features = ["full"] }
bytes = "1"
h2 = "=0.3.27"
http = "0.2"
prost = "=0.12.6"
TOML
cat > src/main.rs <<'RUST'
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "1")]
    cluster_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Member {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    member_id: u64,
    #[prost(string, repeated, tag = "3")]
    peer_urls: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    client_urls: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Members {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    members: Vec<Member>,
    #[prost(message, optional, tag = "3")]
    leader: Option<Member>,
    #[prost(message, optional, tag = "4")]
    etcd_leader: Option<Member>,
}

#[derive(Clone, PartialEq, Message)]
struct TsoRequest {
    #[prost(uint32, tag = "2")]
    count: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    physical: i64,
    #[prost(int64, tag = "2")]
    logical: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Tso {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint32, tag = "2")]
    count: u32,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<Timestamp>,
}

/// GetRegionResponse without a region.
#[derive(Clone, PartialEq, Message)]
struct NoRegion {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

static LOOK_UPS: AtomicU64 = AtomicU64::new(0);
static CLOCK: AtomicU64 = AtomicU64::new(1);

fn frame(message: &impl Message) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(message.encoded_len() as u32);
    message.encode(&mut out).unwrap();
    out.freeze()
}

fn answer(path: &str, request: &[u8], url: &str) -> Option<Bytes> {
    let header = Some(Header { cluster_id: 7 });
    match path {
        "/pdpb.PD/GetMembers" => {
            let urls = vec![url.to_string()];
            let member = Member { name: "a".into(), member_id: 1, peer_urls: urls.clone(), client_urls: urls };
            let leader = Some(member.clone());
            Some(frame(&Members { header, members: vec![member], leader: leader.clone(), etcd_leader: leader }))
        }
        "/pdpb.PD/Tso" => {
            let count = TsoRequest::decode(request).unwrap().count;
            let physical = CLOCK.fetch_add(1, Ordering::SeqCst) as i64;
            Some(frame(&Tso { header, count, timestamp: Some(Timestamp { physical, logical: i64::from(count) }) }))
        }
        "/pdpb.PD/GetRegion" => {
            LOOK_UPS.fetch_add(1, Ordering::SeqCst);
            Some(frame(&NoRegion { header }))
        }
        other => panic!("{other} was not expected: there is no store"),
    }
}

async fn serve(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>, url: String) {
    let path = request.uri().path().to_string();
    let mut body = request.into_body();
    let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let Ok(mut out) = respond.send_response(head, false) else { return };
    let mut buffer = BytesMut::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        buffer.extend_from_slice(&data);
        while buffer.len() >= 5 && buffer.len() >= 5 + (&buffer[1..5]).get_u32() as usize {
            let length = (&buffer[1..5]).get_u32() as usize;
            let message = buffer.split_to(5 + length);
            let Some(reply) = answer(&path, &message[5..], &url) else { return };
            if out.send_data(reply, false).is_err() {
                return;
            }
        }
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let _ = out.send_trailers(trailers);
}

async fn placement_driver() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let url = format!("http://{address}");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let url = url.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(serve(request, respond, url.clone()));
                }
            });
        }
    });
    address
}

#[tokio::main]
async fn main() {
    let endpoint = placement_driver().await;
    let config = tikv_client::Config::default().with_timeout(Duration::from_secs(10));
    let client = tikv_client::TransactionClient::new_with_config(vec![endpoint.clone()], config.clone()).await.unwrap();
    let options = tikv_client::TransactionOptions::new_optimistic().drop_check(tikv_client::CheckLevel::None);
    let mut transaction = client.begin_with_options(options).await.unwrap();
    transaction.put("key".to_owned(), "value".to_owned()).await.unwrap();
    let committed = transaction.commit().await;
    println!("GetRegion for commit: {} look-ups, all without a region", LOOK_UPS.load(Ordering::SeqCst));
    match committed {
        Ok(Some(_)) => println!("commit: Ok, with a commit timestamp"),
        other => println!("commit: {other:?}"),
    }
    let raw = tikv_client::RawClient::new_with_config(vec![endpoint], config).await.unwrap();
    match raw.batch_put(vec![("key".to_owned(), "value".to_owned())]).await {
        Ok(()) => println!("batch_put: Ok"),
        other => println!("batch_put: {other:?}"),
    }
    match raw.put("key".to_owned(), "value".to_owned()).await {
        Err(tikv_client::Error::RegionForKeyNotFound { .. }) => println!("put: Err(RegionForKeyNotFound)"),
        other => println!("put: {other:?}"),
    }
}
RUST
cargo build --quiet
output=$(timeout 120 ./target/debug/finding)
echo "$output"
for line in "commit: Ok, with a commit timestamp" "batch_put: Ok" "put: Err(RegionForKeyNotFound)"; do
    grep -qxF "$line" <<< "$output" || { echo "changed: no line \"$line\""; exit 1; }
done
