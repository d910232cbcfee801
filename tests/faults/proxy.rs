//! A proxy before every node: all traffic between nodes, and from clients to nodes, passes one. It can hold or delay
//! each direction between any two parties without a word to either: nothing is refused, nothing is closed, and what was
//! held arrives later, as on a real network whose packets are lost for a while.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Who sends or receives: a node, by its index, or a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    Node(usize),
    Client,
}

/// What happens to bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They wait until the fault ends.
    Hold,
    /// They arrive later by this.
    Delay(Duration),
}

/// The faults of all directions (from, to), and which processes the nodes are.
pub struct Network {
    faults: watch::Sender<BTreeMap<(Party, Party), Fault>>,
    processes: Mutex<Vec<Option<u32>>>,
    /// Who opened a connection to which node.
    callers: Mutex<BTreeSet<(Party, usize)>>,
}

impl Network {
    pub fn new(nodes: usize) -> Arc<Network> {
        Arc::new(Network {
            faults: watch::channel(BTreeMap::new()).0,
            processes: Mutex::new(vec![None; nodes]),
            callers: Mutex::default(),
        })
    }

    /// Which process `node` is from now on: the process that opened a connection says whose it is.
    pub fn set_process(&self, node: usize, process: Option<u32>) {
        self.processes.lock()[node] = process;
    }

    /// Whether a connection to `node` was seen that `from` opened: if nodes were taken for clients, faults between them
    /// would be none.
    pub fn has_called(&self, from: Party, node: usize) -> bool {
        self.callers.lock().contains(&(from, node))
    }

    pub fn disturb(&self, from: Party, to: Party, fault: Fault) {
        self.faults.send_modify(|faults| _ = faults.insert((from, to), fault));
    }

    pub fn heal(&self) {
        self.faults.send_modify(BTreeMap::clear);
    }

    /// Serves `listener` for `node`, which listens at `target`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, node: usize, target: String) {
        while let Ok((inbound, peer)) = listener.accept().await {
            let (network, target) = (self.clone(), target.clone());
            tokio::spawn(async move {
                let from = network.owner_of(peer);
                network.callers.lock().insert((from, node));
                // A node that is down refuses: the caller sees that its connection ends.
                let Ok(outbound) = TcpStream::connect(&target).await else { return };
                for stream in [&inbound, &outbound] {
                    stream.set_nodelay(true).expect("a socket option of an open socket");
                }
                let ((from_reader, from_writer), (to_reader, to_writer)) =
                    (inbound.into_split(), outbound.into_split());
                let to = Party::Node(node);
                tokio::join!(
                    network.carry(from, to, from_reader, to_writer),
                    network.carry(to, from, to_reader, from_writer)
                );
            });
        }
    }

    async fn carry(&self, from: Party, to: Party, mut reader: OwnedReadHalf, mut writer: OwnedWriteHalf) {
        let mut faults = self.faults.subscribe();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = reader.read(&mut buffer).await.unwrap_or(0);
            let now = faults.borrow_and_update().get(&(from, to)).copied();
            if let Some(Fault::Delay(delay)) = now {
                tokio::time::sleep(delay).await;
            }
            let is_open = |faults: &BTreeMap<_, _>| faults.get(&(from, to)) != Some(&Fault::Hold);
            if faults.wait_for(is_open).await.is_err() || length == 0 {
                let _ = writer.shutdown().await;
                return;
            }
            if writer.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }

    /// The node whose process has the socket at `peer`. Everything else here is a client.
    fn owner_of(&self, peer: SocketAddr) -> Party {
        let Some(inode) = socket_inode(peer) else { return Party::Client };
        let link = format!("socket:[{inode}]");
        let has_socket = |process: u32| {
            let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
            files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == link.as_str()))
        };
        let processes = self.processes.lock().clone();
        match processes.iter().position(|process| process.is_some_and(has_socket)) {
            Some(node) => Party::Node(node),
            None => Party::Client,
        }
    }
}

/// The inode of the IPv4 socket with this local address, from the kernel's table.
fn socket_inode(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let row = table.lines().skip(1).map(str::split_whitespace).find(|row| row.clone().nth(1) == Some(local.as_str()));
    row.and_then(|mut row| row.nth(9)).map(str::to_owned)
}
