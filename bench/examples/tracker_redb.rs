//! examples/tracker.rs for redb 4.4, to compare what a program has to say: the same commands, records and index.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

const LAST: TableDefinition<&str, u64> = TableDefinition::new("last");
const ISSUES: TableDefinition<u64, &str> = TableDefinition::new("issues");
const BY_STATE: TableDefinition<&[u8], ()> = TableDefinition::new("by state");

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Tracker {
    db: Database,
}

impl Tracker {
    fn open(path: &str) -> Result<Tracker> {
        let db = Database::create(path)?;
        let transaction = db.begin_write()?;
        transaction.open_table(LAST)?;
        transaction.open_table(ISSUES)?;
        transaction.open_table(BY_STATE)?;
        transaction.commit()?;
        Ok(Tracker { db })
    }

    fn add(&self, title: &str) -> Result<u64> {
        let transaction = self.db.begin_write()?;
        let id = {
            let mut last = transaction.open_table(LAST)?;
            let id = 1 + last.get("last")?.map_or(0, |id| id.value());
            last.insert("last", id)?;
            transaction.open_table(ISSUES)?.insert(id, format!("open {title}").as_str())?;
            transaction.open_table(BY_STATE)?.insert(index_key("open", id).as_slice(), ())?;
            id
        };
        transaction.commit()?;
        Ok(id)
    }

    /// Returns whether there was such an open issue.
    fn close(&self, id: u64) -> Result<bool> {
        let transaction = self.db.begin_write()?;
        {
            let mut issues = transaction.open_table(ISSUES)?;
            let record = issues.get(id)?.map(|record| record.value().to_string());
            let Some(title) = record.as_deref().and_then(|record| record.strip_prefix("open ")) else {
                return Ok(false);
            };
            issues.insert(id, format!("closed {title}").as_str())?;
            let mut by_state = transaction.open_table(BY_STATE)?;
            by_state.remove(index_key("open", id).as_slice())?;
            by_state.insert(index_key("closed", id).as_slice(), ())?;
        }
        transaction.commit()?;
        Ok(true)
    }

    fn list(&self, state: &str) -> Result<Vec<(u64, String)>> {
        let transaction = self.db.begin_read()?;
        let (issues, by_state) = (transaction.open_table(ISSUES)?, transaction.open_table(BY_STATE)?);
        let (start, end) = (format!("{state}\0"), format!("{state}\x01"));
        let mut found = Vec::new();
        for entry in by_state.range(start.as_bytes()..end.as_bytes())? {
            let (key, _) = entry?;
            let id = u64::from_be_bytes(key.value()[state.len() + 1..].try_into().expect("8 bytes"));
            let record = issues.get(id)?.expect("the index names issues that there are");
            found.push((id, record.value().to_string()));
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
        _ => return Err("usage: tracker_redb FILE add TITLE | close ID | list open|closed".into()),
    }
    Ok(())
}
