//! `kontiki put`, `get` and `delete`: at a node, or in a directory without one.

use super::local::Purpose;
use super::remote::Endpoint;
use super::source::{Keys, Source};
use super::{Failure, block_on, local, text};
use clap::Args;
use kontiki::{Db, VALUE_BYTES_MAX};
use kontiki_env::KeyText;
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// The place of the data, and the form of keys and values on the command line.
#[derive(Args, Debug)]
pub struct Place {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Use this directory instead of a node; no other process may have it open
    #[arg(long, id = "data_dir", value_name = "DIR", conflicts_with = "endpoint")]
    data_dir: Option<PathBuf>,
    /// Keys and values are hexadecimal digits, in arguments and in the output
    #[arg(long)]
    pub hex: bool,
}

/// An open node or directory.
enum Store {
    Directory(Db),
    Node(Endpoint),
}

impl Place {
    fn open(&self, purpose: Purpose) -> Result<Store, Failure> {
        match &self.data_dir {
            Some(folder) => Ok(Store::Directory(local::open(folder, purpose)?)),
            None => Ok(Store::Node(self.endpoint.clone())),
        }
    }

    /// The node or directory, read-only.
    pub fn source(&self, keys: &Keys) -> Result<Source, Failure> {
        Source::open(self.data_dir.as_deref(), &self.endpoint, keys)
    }

    fn key(&self, argument: &str) -> Result<Vec<u8>, Failure> {
        let key = text::parse("KEY", argument, self.hex)?;
        if key.is_empty() { Err(Failure::usage("KEY \"\": accepted is at least one byte")) } else { Ok(key) }
    }
}

/// The file name that means standard input or output.
const STANDARD: &str = "-";

/// Arguments of `kontiki put`.
#[derive(Args, Debug)]
pub struct Put {
    /// The key
    key: String,
    /// Its new value
    #[arg(allow_hyphen_values = true, conflicts_with = "from")]
    value: Option<String>,
    /// Take the value from this file, byte for byte; `-` is standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

impl Put {
    /// Writes; returns when the write is durable.
    pub fn run(self) -> Result<(), Failure> {
        let (key, value) = (self.place.key(&self.key)?, self.value()?);
        match self.place.open(Purpose::Create)? {
            Store::Directory(db) => {
                db.put(&key, &value).map_err(local::failed)?;
                db.close().map_err(local::failed)
            }
            Store::Node(endpoint) => block_on(endpoint.put(key, value)),
        }
    }

    fn value(&self) -> Result<Vec<u8>, Failure> {
        match (&self.value, &self.from) {
            (_, Some(path)) => read_value(path),
            (Some(value), None) => text::parse("VALUE", value, self.place.hex),
            (None, None) => {
                Err(Failure::usage("VALUE is missing: give it, or --from FILE, where `-` is standard input"))
            }
        }
    }
}

/// The contents of a file, or of standard input: at most the largest value.
#[allow(clippy::disallowed_methods)] // A file of the user, which may be a pipe.
fn read_value(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let input: Box<dyn Read> = match path.as_os_str() == STANDARD {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(std::fs::File::open(path).map_err(|error| Failure::usage(text(error)))?),
    };
    let mut value = Vec::new();
    input.take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value).map_err(|error| match error.kind() {
        ErrorKind::IsADirectory => Failure::usage(text(error)),
        _ => Failure::new(text(error)),
    })?;
    if value.len() > VALUE_BYTES_MAX {
        let path = path.display();
        return Err(Failure::usage(format!("--from {path}: a value has at most {VALUE_BYTES_MAX} bytes")));
    }
    Ok(value)
}

/// Arguments of `kontiki get`.
#[derive(Args, Debug)]
pub struct Get {
    /// The key
    key: String,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Write the value to this file, byte for byte; `-` is standard output
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "hex"])]
    to: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    place: Place,
}

impl Get {
    /// Prints the value; fails if there is none.
    pub fn run(self) -> Result<(), Failure> {
        let key = self.place.key(&self.key)?;
        let Some(value) = self.place.source(&self.keys)?.get(&key)? else {
            return Err(Failure::new(format!("there is no key {}", KeyText(self.key.as_bytes()))));
        };
        let hex = self.place.hex;
        if let Some(path) = self.to.as_deref().filter(|path| path.as_os_str() != STANDARD) {
            return write_value(path, &value);
        }
        let mut out = std::io::stdout().lock();
        if self.to.is_some() {
            out.write_all(&value)?;
            out.flush()?;
        } else if self.json {
            writeln!(out, "{}", json!({ "key": text::to_json(&key, hex), "value": text::to_json(&value, hex) }))?;
        } else {
            writeln!(out, "{}", text::show(&value, hex))?;
        }
        Ok(())
    }
}

#[allow(clippy::disallowed_methods)] // A file of the user, which may be a pipe.
fn write_value(path: &Path, value: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, value).map_err(|error| {
        let error = kontiki_engine::Error::io(path, &error);
        local::failed(error)
    })
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
    /// Removes; returns when the removal is durable.
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
