//! A counter that many threads increment: under a lock of the key, each transaction commits at its first try.
//!
//! ```text
//! cargo run --release --example counter
//! ```

use kontiki::{Db, Durability, Family, Options, TransactionOptions};

const THREADS: u64 = 4;
const TURNS: u64 = 250;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let db = Db::open(folder.path(), Options::default())?;
    // Survives a killed process; a power loss may take back the last increments.
    let options = TransactionOptions { durability: Durability::Buffered, ..TransactionOptions::default() };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..TURNS {
                    let incremented = db.transact_with(&options, |transaction| {
                        let found = transaction.get_for_update(Family::DEFAULT, "counter")?;
                        let next =
                            found.map_or(1, |bytes| u64::from_be_bytes(bytes[..].try_into().expect("8 bytes")) + 1);
                        transaction.put("counter", next.to_be_bytes())
                    });
                    incremented.unwrap_or_else(|error| panic!("{:?}: {error}", error.kind()));
                }
            });
        }
    });
    let found = db.get("counter")?.ok_or("there is a counter")?;
    println!("{}", u64::from_be_bytes(found[..].try_into()?));
    assert_eq!(found[..], (THREADS * TURNS).to_be_bytes());
    Ok(db.close()?)
}
