//! Nodes reached over the network.

use super::Failure;
use super::source::{Take, Wanted};
use super::tls::TlsOptions;
use bytes::Bytes;
use clap::Args;
use kontiki::client::{Client, Error, Options};
use kontiki_proto::{Code, Status};
use kontiki_tls::Credentials;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Longest time that a command waits for a cluster: several leader elections.
pub const TIMEOUT: Duration = Duration::from_secs(15);
/// A node that listens accepts a connection well within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The endpoints of the cluster.
#[derive(Args, Clone, Debug)]
pub struct Endpoint {
    /// Any node of the cluster; or several, separated by commas: all are asked at the same time, and the first that
    /// answers is used
    #[arg(long = "endpoint", id = "endpoint", value_name = "HOST:PORT", default_value = super::ENDPOINT_DEFAULT)]
    nodes: String,
    #[command(flatten)]
    tls: TlsOptions,
}

impl Endpoint {
    /// The nodes, as `host:port`, if one of them accepts a connection: only then waiting for the cluster is useful.
    pub async fn nodes(&self) -> Result<Vec<&str>, Failure> {
        let nodes: Vec<&str> = self.nodes.split(',').map(bare).filter(|node| !node.is_empty()).collect();
        if nodes.is_empty() {
            return Err(Failure::usage("--endpoint names no node: HOST:PORT is expected"));
        }
        nodes.iter().try_for_each(|node| check(node))?;
        self.check_scheme()?;
        let attempts = nodes.iter().map(|node| {
            let connect = async move {
                let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect(node)).await;
                connected.unwrap_or_else(|_| Err("it does not answer".to_owned()))
            };
            Box::pin(connect)
        });
        let answered = futures::future::select_ok(attempts).await.map(|_| ());
        match answered {
            Ok(()) => Ok(nodes),
            Err(last) => {
                let of = if nodes.len() > 1 { "; of the last one: " } else { ": " };
                Err(Failure::new(format!(
                    "no node answers at {}{of}{last}; start one with `kontiki serve`, or name another with --endpoint",
                    self.nodes
                )))
            }
        }
    }

    /// Writes a key.
    pub async fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Failure> {
        self.client().await?.raw().put(key, value).await.map_err(failed)
    }

    /// Makes regions begin at keys.
    pub async fn split(&self, transactional: bool, keys: Vec<Vec<u8>>) -> Result<(), Failure> {
        let client = self.client().await?;
        let done = if transactional { client.split(keys).await } else { client.raw().split(keys).await };
        done.map_err(failed)
    }

    /// Reads a key, a transactional one at a new timestamp.
    pub async fn get(&self, transactional: bool, key: Vec<u8>) -> Result<Option<Bytes>, Failure> {
        let client = self.client().await?;
        if transactional {
            let now = client.timestamp().await.map_err(failed)?;
            return client.snapshot(now).get(key).await.map_err(failed);
        }
        client.raw().get(key).await.map_err(failed)
    }

    /// Removes a key.
    pub async fn delete(&self, key: Vec<u8>) -> Result<(), Failure> {
        self.client().await?.raw().delete(key).await.map_err(failed)
    }

    /// Passes entries to `take`, page by page as they are read; transactional ones at a new timestamp.
    pub async fn scan(&self, transactional: bool, wanted: &Wanted, take: Take<'_>) -> Result<(), Failure> {
        let client = self.client().await?;
        let (start, end) = (wanted.start.clone(), wanted.end.clone().unwrap_or_default());
        if transactional {
            let now = client.timestamp().await.map_err(failed)?;
            let mut pages = client.snapshot(now).scan_pages(start, end, wanted.limit, wanted.reverse);
            while let Some(page) = pages.next_page().await.map_err(failed)? {
                page.iter().try_for_each(|pair| take(&pair.key, &pair.value))?;
            }
            return Ok(());
        }
        let mut pages = client.raw().scan_pages(start, end, wanted.limit, wanted.reverse);
        while let Some(page) = pages.next_page().await.map_err(failed)? {
            page.iter().try_for_each(|pair| take(&pair.key, &pair.value))?;
        }
        Ok(())
    }

    /// A scheme decides nothing, but one that promises TLS is not answered without it.
    fn check_scheme(&self) -> Result<(), Failure> {
        let is_https = |node: &&str| node.trim_start().starts_with("https://");
        let Some(node) = self.nodes.split(',').find(is_https) else { return Ok(()) };
        match self.credentials()? {
            Some(_) => Ok(()),
            None => Err(Failure::usage(format!(
                "--endpoint {node:?}: TLS needs --ca-file; without TLS give HOST:PORT such as {}",
                super::ENDPOINT_DEFAULT
            ))),
        }
    }

    /// The certificates, where they are given.
    pub fn credentials(&self) -> Result<Option<Arc<Credentials>>, Failure> {
        self.tls.credentials()
    }

    /// A client of the cluster.
    pub async fn client(&self) -> Result<Client, Failure> {
        let nodes = self.nodes().await?;
        let tls = self.tls.files()?;
        let options =
            Options { operation_timeout: TIMEOUT, connect_timeout: CONNECT_TIMEOUT, tls, ..Options::default() };
        Client::connect_with(nodes, options).await.map_err(failed)
    }
}

/// Refuses what cannot be the address of a node.
fn check(node: &str) -> Result<(), Failure> {
    let port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    let is_host = |host: &str| !host.is_empty() && !host.contains(['/', ' ', '@']);
    match node.rsplit_once(':') {
        Some((host, text)) if is_host(host) && port(text) => Ok(()),
        _ => Err(Failure::usage(format!(
            "--endpoint {node:?}: accepted is HOST:PORT such as {}, with a port of 1 to 65535, without a path, and with \
             no scheme but http:// or, with certificates, https://",
            super::ENDPOINT_DEFAULT
        ))),
    }
}

async fn connect(node: &str) -> Result<(), String> {
    let found = tokio::net::lookup_host(node).await;
    let addresses: Vec<_> = found.map_err(|error| format!("its host name cannot be resolved ({error})"))?.collect();
    TcpStream::connect(&addresses[..]).await.map(drop).map_err(|error| error.to_string())
}

/// There was no answer in time.
pub fn too_slow(nodes: &[&str]) -> Failure {
    let (seconds, nodes) = (TIMEOUT.as_secs(), nodes.join(", "));
    Failure::new(format!("no answer within {seconds} s from {nodes}; is a majority of the nodes running?"))
}

/// The node answered with an error.
pub fn refused(endpoint: &str, status: &Status) -> Failure {
    if let Some(refusal) = kontiki_tls::refusal(status) {
        return Failure::usage(refusal);
    }
    match status.code() {
        Code::Unimplemented => {
            Failure::usage(format!("{endpoint} is not the client address of a node; is it a node's status port?"))
        }
        _ => Failure::new(format!("the node at {endpoint} reports: {}", status.message())),
    }
}

/// `host:port` of an endpoint that may be given as a URL.
fn bare(endpoint: &str) -> &str {
    let endpoint = endpoint.trim();
    endpoint.split_once("://").map_or(endpoint, |(_, bare)| bare).trim_end_matches('/')
}

pub fn failed(error: Error) -> Failure {
    match error {
        Error::Invalid(what) => Failure::usage(what),
        // The node says what to do.
        Error::Timeout { last, .. } if last.contains("is full") => Failure::new(format!("not done: {last}")),
        Error::Timeout { .. } => Failure::new(format!("{error}; is a majority of the nodes running?")),
        Error::Undetermined { .. } => Failure::new(format!("{error}; read the key to find out")),
        error => Failure::new(error.to_string()),
    }
}
