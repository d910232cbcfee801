//! PD's pages on the port of gRPC, by HTTP/1.1.

use super::tests::{try_page, with_node};
use super::*;
use kontiki_proto::pdpb;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn page(address: SocketAddr, path: &str) -> (u16, String) {
    let text = try_page(address, path).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn json(address: SocketAddr, path: &str) -> Value {
    let (code, body) = page(address, path).await;
    assert_eq!(code, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn the_pages_of_pd_are_beside_grpc_on_one_port() {
    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |mut client, _| {
        let address = client.address;
        let regions = json(address, "/pd/api/v1/regions").await;
        assert_eq!(regions["count"].as_u64(), regions["regions"].as_array().map(|all| all.len() as u64));
        let first = &regions["regions"][0];
        assert_eq!(json(address, &format!("/pd/api/v1/region/id/{}", first["id"])).await["end_key"], first["end_key"]);
        let stores = json(address, "/pd/api/v1/stores").await;
        assert_eq!((&stores["count"], &stores["stores"][0]["store"]["state_name"]), (&1.into(), &"Up".into()));
        assert_eq!(json(address, "/pd/api/v1/store/1").await["store"]["address"], address.to_string());
        let members = json(address, "/pd/api/v1/members").await;
        assert_eq!(members["leader"], members["members"][0]);
        assert_eq!(json(address, "/pd/api/v1/version").await["version"], "v8.5.0");
        assert_eq!(json(address, "/pd/api/v1/health").await[0]["health"], true);

        for (path, code, text) in [
            ("/pd/api/v1/config", 404, "no such page"),
            ("/pd/api/v1/region/id/99999", 404, "region 99999 not found"),
            ("/pd/api/v1/store/99999", 404, "invalid store ID 99999"),
            ("/pd/api/v1/store/one", 400, "whole number"),
            ("/metrics", 404, "status port"),
            ("/pdpb.PD/GetMembers", 404, "needs HTTP/2"),
            ("/", 404, "needs HTTP/2"),
        ] {
            let (found, body) = page(address, path).await;
            assert_eq!(found, code, "{path}: {body}");
            assert!(body.contains(text), "{path}: {body}");
        }
        // gRPC goes on beside it.
        client.pd.get_members(pdpb::GetMembersRequest::default()).await.unwrap();
    });
}

#[test]
fn the_pages_can_only_be_read() {
    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |client, _| {
        let request = "DELETE /pd/api/v1/store/1 HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n";
        assert!(answer(client.address, request.as_bytes()).await.starts_with("HTTP/1.1 405"));
    });
}

/// A head without an end is refused at a bound.
#[test]
fn the_head_of_a_request_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |client, _| {
        let mut request = b"GET /pd/api/v1/version HTTP/1.1\r\nhost: node\r\nlong: ".to_vec();
        request.resize(2 << 20, b'x');
        let answer = answer(client.address, &request).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    });
}

/// What is sent back until the connection ends; empty if it is reset.
async fn answer(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let exchange = async {
        // The node may end the connection before it has read everything.
        let _ = writer.write_all(request).await;
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::time::timeout(Duration::from_secs(60), exchange).await.expect("the node answers or ends the connection")
}
