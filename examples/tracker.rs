//! An issue tracker with an index: a transaction keeps records and index together, and a range of the index answers a
//! query. The same program for redb and fjall is in bench/examples/.
//!
//! ```text
//! cargo run --release --example tracker -- DIR add "hull leaks"
//! cargo run --release --example tracker -- DIR close 1
//! cargo run --release --example tracker -- DIR list open
//! ```

use kontiki::{Db, Family, Options, Result};

struct Tracker {
    db: Db,
    issues: Family,
    by_state: Family,
}

impl Tracker {
    fn open(path: &str) -> Result<Tracker> {
        let db = Db::open(path, Options::default())?;
        let (issues, by_state) = (db.open_family("issues")?, db.open_family("by state")?);
        Ok(Tracker { db, issues, by_state })
    }

    fn add(&self, title: &str) -> Result<u64> {
        self.db.transact(|transaction| {
            let last = transaction.get_for_update(Family::DEFAULT, "last")?;
            let id = 1 + last.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().expect("8 bytes")));
            transaction.put("last", id.to_be_bytes())?;
            transaction.put_in(self.issues, id.to_be_bytes(), format!("open {title}"))?;
            transaction.put_in(self.by_state, index_key("open", id), "")?;
            Ok(id)
        })
    }

    /// Returns whether there was such an open issue.
    fn close(&self, id: u64) -> Result<bool> {
        self.db.transact(|transaction| {
            let Some(found) = transaction.get_in(self.issues, id.to_be_bytes())? else { return Ok(false) };
            let record = String::from_utf8_lossy(&found);
            let Some(title) = record.strip_prefix("open ") else { return Ok(false) };
            transaction.put_in(self.issues, id.to_be_bytes(), format!("closed {title}"))?;
            transaction.delete_in(self.by_state, index_key("open", id))?;
            transaction.put_in(self.by_state, index_key("closed", id), "")?;
            Ok(true)
        })
    }

    fn list(&self, state: &str) -> Result<Vec<(u64, String)>> {
        let snapshot = self.db.snapshot();
        let mut found = Vec::new();
        for entry in snapshot.range_in(self.by_state, kontiki::prefix(format!("{state}\0")))? {
            let (key, _) = entry?;
            let id = &key[state.len() + 1..];
            let record = snapshot.get_in(self.issues, id)?.expect("the index names issues that there are");
            found.push((u64::from_be_bytes(id.try_into().expect("8 bytes")), String::from_utf8_lossy(&record).into()));
        }
        Ok(found)
    }
}

fn index_key(state: &str, id: u64) -> Vec<u8> {
    [state.as_bytes(), &[0], &id.to_be_bytes()].concat()
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
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
        _ => return Err("usage: tracker DIR add TITLE | close ID | list open|closed".into()),
    }
    Ok(())
}
