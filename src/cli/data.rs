//! `kontiki put`, `get`, `delete` and `scan`: at a node, or in a directory without one.

use super::local::Purpose;
use super::remote::Endpoint;
use super::{Failure, block_on, local, text};
use bytes::Bytes;
use clap::Args;
use kontiki::Db;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// Where the data is, and how keys and values are written here.
#[derive(Args, Debug)]
struct Place {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Use this directory instead of a node; nobody else may have it open
    #[arg(long, value_name = "DIR", conflicts_with = "endpoint")]
    data_dir: Option<PathBuf>,
    /// Keys and values are hexadecimal digits, here and in what is printed
    #[arg(long)]
    hex: bool,
}

/// An open place.
enum Store {
    Directory(Db),
    Node(Endpoint),
}

/// A place that is only read.
enum ToRead {
    Directory(local::ToRead),
    Node(Endpoint),
}

impl Place {
    fn open(&self, purpose: Purpose) -> Result<Store, Failure> {
        match &self.data_dir {
            Some(folder) => Ok(Store::Directory(local::open(folder, purpose)?)),
            None => Ok(Store::Node(self.endpoint.clone())),
        }
    }

    fn open_to_read(&self) -> Result<ToRead, Failure> {
        match &self.data_dir {
            Some(folder) => Ok(ToRead::Directory(local::open_to_read(folder)?)),
            None => Ok(ToRead::Node(self.endpoint.clone())),
        }
    }

    fn key(&self, argument: &str) -> Result<Vec<u8>, Failure> {
        let key = text::parse("KEY", argument, self.hex)?;
        if key.is_empty() { Err(Failure::usage("KEY \"\": accepted is at least one byte")) } else { Ok(key) }
    }
}

/// Arguments of `kontiki put`.
#[derive(Args, Debug)]
pub struct Put {
    /// The key
    key: String,
    /// Its new value
    #[arg(allow_hyphen_values = true)]
    value: String,
    #[command(flatten)]
    place: Place,
}

impl Put {
    /// Writes; done when it is durable.
    pub fn run(self) -> Result<(), Failure> {
        let (key, value) = (self.place.key(&self.key)?, text::parse("VALUE", &self.value, self.place.hex)?);
        match self.place.open(Purpose::Create)? {
            Store::Directory(db) => {
                db.put(&key, &value).map_err(local::failed)?;
                db.close().map_err(local::failed)
            }
            Store::Node(endpoint) => block_on(endpoint.put(key, value)),
        }
    }
}

/// Arguments of `kontiki get`.
#[derive(Args, Debug)]
pub struct Get {
    /// The key
    key: String,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl Get {
    /// Prints the value; fails if there is none.
    pub fn run(self) -> Result<(), Failure> {
        let key = self.place.key(&self.key)?;
        let value = match self.place.open_to_read()? {
            ToRead::Directory(directory) => directory.db.get(&key).map_err(local::failed)?,
            ToRead::Node(endpoint) => block_on(endpoint.get(key.clone()))?,
        };
        let Some(value) = value else {
            return Err(Failure::new(format!("there is no key {:?}", self.key)));
        };
        let (hex, mut out) = (self.place.hex, std::io::stdout().lock());
        if self.json {
            writeln!(out, "{}", json!({ "key": text::to_json(&key, hex), "value": text::to_json(&value, hex) }))?;
        } else {
            writeln!(out, "{}", text::show(&value, hex))?;
        }
        Ok(())
    }
}

/// Arguments of `kontiki delete`.
#[derive(Args, Debug)]
pub struct Delete {
    /// The key
    key: String,
    #[command(flatten)]
    place: Place,
}

impl Delete {
    /// Removes; done when that is durable.
    pub fn run(self) -> Result<(), Failure> {
        let key = self.place.key(&self.key)?;
        match self.place.open(Purpose::Change)? {
            Store::Directory(db) => {
                db.delete(&key).map_err(local::failed)?;
                db.close().map_err(local::failed)
            }
            Store::Node(endpoint) => block_on(endpoint.delete(key)),
        }
    }
}

/// Arguments of `kontiki scan`.
#[derive(Args, Debug)]
pub struct Scan {
    /// The first key [default: the first there is]
    start: Option<String>,
    /// The key to stop before [default: none]
    end: Option<String>,
    /// Keys that start with this, in place of START and END
    #[arg(long, conflicts_with_all = ["start", "end"])]
    prefix: Option<String>,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// From the last key of the range to the first
    #[arg(long)]
    reverse: bool,
    /// Print one JSON object a line for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl Scan {
    /// Prints a table, or lines of JSON.
    pub fn run(self) -> Result<(), Failure> {
        let (start, end) = self.range()?;
        let limit = self.limit as usize;
        let found = match self.place.open_to_read()? {
            ToRead::Directory(directory) => local::scan(&directory.db, &start, end.as_deref(), limit, self.reverse)?,
            ToRead::Node(endpoint) => block_on(endpoint.scan(start, end, limit, self.reverse))?,
        };
        self.print(&found)
    }

    fn range(&self) -> Result<(Vec<u8>, Option<Vec<u8>>), Failure> {
        let parse = |name: &str, argument: &String| text::parse(name, argument, self.place.hex);
        if let Some(prefix) = &self.prefix {
            let start = parse("PREFIX", prefix)?;
            let end = after_prefix(&start);
            return Ok((start, end));
        }
        let start = self.start.as_ref().map(|start| parse("START", start)).transpose()?.unwrap_or_default();
        let end = self.end.as_ref().map(|end| parse("END", end)).transpose()?.filter(|end| !end.is_empty());
        Ok((start, end))
    }

    fn print(&self, found: &[(Bytes, Bytes)]) -> Result<(), Failure> {
        let (hex, mut out) = (self.place.hex, std::io::stdout().lock());
        if self.json {
            for (key, value) in found {
                writeln!(out, "{}", json!({ "key": text::to_json(key, hex), "value": text::to_json(value, hex) }))?;
            }
            return Ok(());
        }
        let rows = found.iter().map(|(key, value)| vec![text::show(key, hex), text::show(value, hex)]);
        writeln!(out, "{}", text::table(&["KEY", "VALUE"], rows))?;
        if found.len() == self.limit as usize {
            eprintln!("{} keys, the limit; there may be more (--limit)", found.len());
        }
        Ok(())
    }
}

/// The first key after all that start with `prefix`; `None` if there is no such key.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < 0xff)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

#[cfg(test)]
#[path = "data_test.rs"]
mod tests;
