//! What the end of a connection says about a request, against servers that send HTTP/2 frames by hand.

use super::*;
use kontiki_proto::calls;
use kontiki_proto::kvrpcpb::RawPutRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PREFACE_BYTES: usize = 24;
const END_STREAM: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

fn frame(kind: u8, stream: u32, words: &[u32]) -> Vec<u8> {
    let mut frame = (4 * words.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, 0]);
    frame.extend(stream.to_be_bytes());
    frame.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    frame
}

fn go_away(last_stream: u32) -> Vec<u8> {
    frame(GOAWAY, 0, &[last_stream, NO_ERROR])
}

/// Reads until the first request has arrived as a whole, on stream 1.
async fn read_request(stream: &mut TcpStream) {
    stream.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, &[])).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let bytes = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; bytes]).await.unwrap();
        if head[3] == DATA && head[4] & END_STREAM != 0 {
            return;
        }
    }
}

/// The failure of a put whose server answers with these frames and closes the connection.
async fn failure_after(frames: Vec<u8>) -> Failure {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(&frames).await.unwrap();
    });
    let grpc = Grpc::new(Duration::from_secs(20));
    let channel = grpc.channel(&address).unwrap();
    let failure = grpc.call::<calls::RawPut>(&channel, RawPutRequest::default()).await.unwrap_err();
    server.await.unwrap();
    failure
}

#[tokio::test]
async fn a_request_that_a_stopping_node_has_not_begun_is_known_to_be_undone() {
    for frames in [go_away(0), frame(RST_STREAM, 1, &[REFUSED_STREAM])] {
        let failure = failure_after(frames).await;
        assert!(failure.is_unsent, "{failure:?}");
    }
}

#[tokio::test]
async fn a_request_that_a_node_may_have_begun_stays_uncertain() {
    for frames in [vec![], go_away(1), frame(RST_STREAM, 1, &[CANCEL]), frame(RST_STREAM, 1, &[NO_ERROR])] {
        let failure = failure_after(frames).await;
        assert!(!failure.is_unsent, "{failure:?}");
    }
}
