//! examples/tracker.rs for fjall 3.1, to compare what a program has to say: the same commands, records and index.

use fjall::{KeyspaceCreateOptions, OptimisticTxDatabase, OptimisticTxKeyspace, PersistMode, Readable};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Tracker {
    db: OptimisticTxDatabase,
    last: OptimisticTxKeyspace,
    issues: OptimisticTxKeyspace,
    by_state: OptimisticTxKeyspace,
}

impl Tracker {
    fn open(path: &str) -> Result<Tracker> {
        let db = OptimisticTxDatabase::builder(path).open()?;
        let last = db.keyspace("last", KeyspaceCreateOptions::default)?;
        let issues = db.keyspace("issues", KeyspaceCreateOptions::default)?;
        let by_state = db.keyspace("by state", KeyspaceCreateOptions::default)?;
        Ok(Tracker { db, last, issues, by_state })
    }

    fn add(&self, title: &str) -> Result<u64> {
        loop {
            let mut transaction = self.db.write_tx()?.durability(Some(PersistMode::SyncAll));
            let last = transaction.get(&self.last, "last")?;
            let id = 1 + last.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().expect("8 bytes")));
            transaction.insert(&self.last, "last", id.to_be_bytes());
            transaction.insert(&self.issues, id.to_be_bytes(), format!("open {title}"));
            transaction.insert(&self.by_state, index_key("open", id), "");
            if transaction.commit()?.is_ok() {
                return Ok(id);
            }
        }
    }

    /// Returns whether there was such an open issue.
    fn close(&self, id: u64) -> Result<bool> {
        loop {
            let mut transaction = self.db.write_tx()?.durability(Some(PersistMode::SyncAll));
            let Some(found) = transaction.get(&self.issues, id.to_be_bytes())? else { return Ok(false) };
            let record = String::from_utf8_lossy(&found);
            let Some(title) = record.strip_prefix("open ") else { return Ok(false) };
            transaction.insert(&self.issues, id.to_be_bytes(), format!("closed {title}"));
            transaction.remove(&self.by_state, index_key("open", id));
            transaction.insert(&self.by_state, index_key("closed", id), "");
            if transaction.commit()?.is_ok() {
                return Ok(true);
            }
        }
    }

    fn list(&self, state: &str) -> Result<Vec<(u64, String)>> {
        let snapshot = self.db.read_tx();
        let mut found = Vec::new();
        for entry in snapshot.prefix(&self.by_state, format!("{state}\0")) {
            let key = entry.key()?;
            let id = &key[state.len() + 1..];
            let record = snapshot.get(&self.issues, id)?.expect("the index names issues that there are");
            found.push((u64::from_be_bytes(id.try_into().expect("8 bytes")), String::from_utf8_lossy(&record).into()));
        }
        Ok(found)
    }
}

fn index_key(state: &str, id: u64) -> Vec<u8> {
    [state.as_bytes(), &[0], &id.to_be_bytes()].concat()
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [path, "add", title] => println!("issue {}", Tracker::open(path)?.add(title)?),
        [path, "close", id] => {
            println!("{}", if Tracker::open(path)?.close(id.parse()?)? { "closed" } else { "not open" })
        }
        [path, "list", state] => {
            for (id, record) in Tracker::open(path)?.list(state)? {
                println!("{id}\t{record}");
            }
        }
        _ => return Err("usage: tracker_fjall DIR add TITLE | close ID | list open|closed".into()),
    }
    Ok(())
}
