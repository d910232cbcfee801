//! A client of a cluster: raw keys, a scan, and a transaction.
//!
//! ```text
//! cargo run --release -- cluster --nodes 3 --dir ./raft &
//! cargo run --release --example cluster_client -- 127.0.0.1:20160
//! ```

use kontiki::client::Client;
use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = std::env::args().nth(1).ok_or("usage: cluster_client HOST:PORT")?;
    let client = Client::connect([endpoint.as_str()]).await?;

    let raw = client.raw();
    raw.put("raft/balsa", "9 logs").await?;
    raw.put("raft/mast", "mangrove").await?;
    for pair in raw.scan("raft/", "raft0", 10).await? {
        println!("{} = {}", String::from_utf8_lossy(&pair.key), String::from_utf8_lossy(&pair.value));
    }

    // Keys of transactions are a space of their own.
    let crew = client
        .transact(10, |transaction| {
            Box::pin(async move {
                let found = transaction.get("crew").await?;
                let crew = 1 + found.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().expect("8 bytes")));
                transaction.put("crew", crew.to_be_bytes().to_vec());
                Ok(crew)
            })
        })
        .await?;
    println!("crew of {crew}");
    Ok(())
}
