//! Three local etcd processes for a measurement; ended when dropped.

use super::wire::{self, PutRequest, PutResponse, StatusRequest, StatusResponse};
use crate::nodes::{cpu_seconds_of, free_addresses};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

pub struct Etcd {
    clients: Vec<String>,
    arguments: Vec<Vec<String>>,
    children: Vec<Option<Child>>,
    binary: PathBuf,
    dir: tempfile::TempDir,
}

/// A lazily connected channel.
pub fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.tcp_nodelay(true).timeout(Duration::from_secs(3)).connect_lazy()
}

impl Etcd {
    /// Starts `count` processes with the default settings: writes are durable, elections begin after 1 s.
    pub fn start(binary: &Path, count: usize) -> Etcd {
        let dir = tempfile::tempdir().expect("a directory");
        let addresses = free_addresses(2 * count);
        let (clients, peers) = addresses.split_at(count);
        let members: Vec<_> = (0..count).map(|i| format!("n{i}=http://{}", peers[i])).collect();
        let arguments = (0..count).map(|i| {
            let data = dir.path().join(format!("etcd-{i}")).display().to_string();
            let (client, peer) = (format!("http://{}", clients[i]), format!("http://{}", peers[i]));
            let (name, members) = (format!("n{i}"), members.join(","));
            let pairs = [
                ("--name", name.as_str()),
                ("--data-dir", data.as_str()),
                ("--listen-client-urls", client.as_str()),
                ("--advertise-client-urls", client.as_str()),
                ("--listen-peer-urls", peer.as_str()),
                ("--initial-advertise-peer-urls", peer.as_str()),
                ("--initial-cluster", members.as_str()),
            ];
            pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect()
        });
        let arguments: Vec<Vec<String>> = arguments.collect();
        let children = (0..count).map(|_| None).collect();
        let mut etcd = Etcd { clients: clients.to_vec(), arguments, children, binary: binary.to_owned(), dir };
        (0..count).for_each(|i| etcd.spawn(i));
        etcd
    }

    pub fn spawn(&mut self, i: usize) {
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments[i]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.children[i] = Some(command.spawn().expect("etcd starts; install it, or name it with --etcd"));
    }

    /// SIGKILL.
    pub fn kill(&mut self, i: usize) {
        if let Some(mut child) = self.children[i].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The node that says that it leads.
    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            for i in (0..self.clients.len()).filter(|i| self.children[*i].is_some()) {
                let asked = wire::call(&channel(&self.clients[i]), wire::STATUS, StatusRequest {}).await;
                let Ok(StatusResponse { header: Some(header), leader }) = asked else { continue };
                if leader != 0 && leader == header.member_id {
                    return i;
                }
            }
            assert!(Instant::now() < deadline, "no etcd leads");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn addresses(&self) -> &[String] {
        &self.clients
    }

    pub fn cpu_seconds(&self) -> f64 {
        self.children.iter().flatten().map(|child| cpu_seconds_of(child.id())).sum()
    }

    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.children.len()).for_each(|i| self.kill(i));
    }
}

/// A client that goes to the next node when a call fails.
pub struct EtcdWriter {
    channels: Vec<Channel>,
    at: usize,
}

impl EtcdWriter {
    pub fn new(etcd: &Etcd) -> EtcdWriter {
        EtcdWriter { channels: etcd.clients.iter().map(|address| channel(address)).collect(), at: 0 }
    }

    /// Whether the put was acknowledged.
    pub async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let answer: Result<PutResponse, _> =
            wire::call(&self.channels[self.at], wire::PUT, PutRequest { key, value }).await;
        if answer.is_err() {
            self.at = (self.at + 1) % self.channels.len();
        }
        answer.is_ok()
    }
}
