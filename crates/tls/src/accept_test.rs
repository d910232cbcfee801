//! Both ends of connections over loopback: who is accepted, and what each end learns otherwise.

use super::*;
use crate::test_authority::Authority;
use crate::{ClientCertificates, Credentials, TlsFiles, connect};
use kontiki_env::Env;
use std::path::Path;
use tokio::net::TcpListener;

struct Node {
    address: String,
    listener: TcpListener,
    credentials: Arc<Credentials>,
}

async fn node(files: &TlsFiles, clients: ClientCertificates) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let credentials = Credentials::of_node(Env::real(), files.clone(), &address, clients).unwrap();
    Node { address, listener, credentials }
}

impl Node {
    /// Accepts one connection: whether the client has a certificate, or why it was refused.
    async fn accept_one(&self) -> (Result<Option<bool>, String>, Accepted) {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut accepted = self.credentials.grpc_acceptor().unwrap().accept(stream);
        let result = std::future::poll_fn(|cx| accepted.poll_handshake(cx)).await;
        let why = |error| match error {
            HandshakeError::Refused(why) => why,
            HandshakeError::Closed => "closed".into(),
        };
        (result.map_err(why), accepted)
    }

    /// Dials as a client with these files.
    async fn dial(&self, files: TlsFiles) -> Result<(), String> {
        let credentials = Credentials::of_client(Env::real(), files).unwrap();
        let connected = connect(&self.address, Some(&credentials), |endpoint| endpoint).await;
        connected.map(|_| ()).map_err(|error| texts(&error))
    }
}

fn texts(error: &dyn std::error::Error) -> String {
    let source = error.source().map(texts).unwrap_or_default();
    format!("{error}: {source}")
}

fn two(folder: &Path) -> (Authority, Authority) {
    (Authority::new(folder, "one"), Authority::new(folder, "two"))
}

#[tokio::test]
async fn a_client_with_a_certificate_is_accepted_and_one_of_another_cluster_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = two(folder.path());
    let node = node(&one.issue("node", |_| ()), ClientCertificates::Required).await;
    let ((accepted, _connection), dialled) = tokio::join!(node.accept_one(), node.dial(one.issue("client", |_| ())));
    assert_eq!(accepted, Ok(Some(true)));
    dialled.unwrap();

    // The client does not accept the node.
    let ((refused, _), dialled) = tokio::join!(node.accept_one(), node.dial(two.issue("stranger", |_| ())));
    assert!(refused.unwrap_err().contains("does not accept this node's certificate"));
    let error = dialled.unwrap_err();
    assert!(error.contains("not signed by an authority") && error.contains("two.ca.pem"), "{error}");

    // The node does not accept the client.
    let stranger = TlsFiles { ca: one.ca(), ..two.issue("stranger", |_| ()) };
    let ((refused, _), _) = tokio::join!(node.accept_one(), node.dial(stranger));
    let refused = refused.unwrap_err();
    assert!(refused.contains("the client's certificate") && refused.contains("one.ca.pem"), "{refused}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_unless_they_are_optional() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "one");
    let files = authority.issue("node", |_| ());
    let client = || TlsFiles { ca: authority.ca(), own: None };
    let strict = node(&files, ClientCertificates::Required).await;
    let ((refused, _), _) = tokio::join!(strict.accept_one(), strict.dial(client()));
    assert!(refused.unwrap_err().contains("the client has no certificate"));
    let lenient = node(&files, ClientCertificates::Optional).await;
    let ((accepted, _connection), dialled) = tokio::join!(lenient.accept_one(), lenient.dial(client()));
    assert_eq!(accepted, Ok(Some(false)));
    dialled.unwrap();
}

#[tokio::test]
async fn a_client_in_plain_text_gets_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&Authority::new(folder.path(), "one").issue("node", |_| ()), ClientCertificates::Required).await;
    let client = async {
        let mut stream = TcpStream::connect(&node.address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let ((refused, _), answer) = tokio::join!(node.accept_one(), client);
    assert!(refused.unwrap_err().contains("does not use TLS"));
    assert_eq!(answer[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0], "SETTINGS");
    assert_eq!((answer[12], usize::from(answer[11])), (7, 8 + REASON.len()), "GOAWAY");
    assert!(String::from_utf8_lossy(&answer).contains("requires TLS"));
}

#[tokio::test]
async fn a_client_with_tls_learns_that_the_node_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let files = Authority::new(folder.path(), "one").issue("client", |_| ());
    let credentials = Credentials::of_client(Env::real(), files).unwrap();
    let plain = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        close(stream).await;
    };
    let (_, dialled) = tokio::join!(plain, connect(&address, Some(&credentials), |endpoint| endpoint));
    let error = texts(&dialled.unwrap_err());
    assert!(error.contains(&address) && error.contains("does not use TLS"), "{error}");
}

#[tokio::test]
async fn a_probe_that_closes_its_connection_is_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&Authority::new(folder.path(), "one").issue("node", |_| ()), ClientCertificates::Required).await;
    let probe = async { drop(TcpStream::connect(&node.address).await.unwrap()) };
    let ((closed, _), ()) = tokio::join!(node.accept_one(), probe);
    assert_eq!(closed, Err("closed".into()));
}

/// The gRPC port has pages beside gRPC: a client chooses the protocol.
#[tokio::test]
async fn the_grpc_port_speaks_both_versions_of_http_and_prefers_the_second() {
    use tokio_rustls::rustls::ClientConfig;
    use tokio_rustls::rustls::pki_types::ServerName;
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "one");
    let node = node(&authority.issue("node", |_| ()), ClientCertificates::Required).await;
    for (offered, agreed) in [
        (vec!["http/1.1"], Some("http/1.1")),
        (vec!["h2"], Some("h2")),
        (vec!["http/1.1", "h2"], Some("h2")),
        (vec![], None),
    ] {
        let credentials = Credentials::of_client(Env::real(), authority.issue("client", |_| ())).unwrap();
        let mut config = ClientConfig::clone(&credentials.client_config());
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(&node.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let dial = connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream);
        let ((accepted, _connection), dialled) = tokio::join!(node.accept_one(), dial);
        assert_eq!(accepted, Ok(Some(true)));
        let stream = dialled.unwrap();
        let found = stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        assert_eq!(found.as_deref(), agreed);
    }
}
