//! The source of keys: those of a directory or of a node.

use super::remote::Endpoint;
use super::{Failure, block_on, local};
use bytes::Bytes;
use clap::Args;
use std::path::Path;

/// The keys to read there.
#[derive(Args, Debug)]
pub struct Keys {
    /// Keys of this family, by its name or number [default: default]
    #[arg(long, value_name = "FAMILY", requires = "data_dir", conflicts_with = "transactional")]
    family: Option<String>,
    /// Transactional keys: of a node at a new timestamp, of a stopped node's directory the newest committed values
    #[arg(long)]
    transactional: bool,
}

/// A source of keys and values that is only read.
pub enum Source {
    /// A directory.
    Directory(local::ToRead, local::Keys),
    /// A cluster, and whether its transactional keys.
    Node(Endpoint, bool),
}

/// The entries to read: `start <= key < end`, at most `limit`; an absent end is unbounded.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The first key.
    pub start: Vec<u8>,
    /// The key to stop before.
    pub end: Option<Vec<u8>>,
    /// How many at most.
    pub limit: usize,
    /// From the end on.
    pub reverse: bool,
}

/// Called with each entry.
pub type Take<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), Failure>;

impl Source {
    /// Opens the directory, or otherwise connects to the node.
    pub fn open(folder: Option<&Path>, endpoint: &Endpoint, keys: &Keys) -> Result<Source, Failure> {
        let Some(folder) = folder else {
            // `requires` does not see it when `--endpoint`, which excludes `--data-dir`, is given too.
            return match &keys.family {
                Some(family) => Err(Failure::usage(format!(
                    "--family {family}: families are those of a directory, given with --data-dir; a node serves raw \
                     keys, and with --transactional transactional ones"
                ))),
                None => Ok(Source::Node(endpoint.clone(), keys.transactional)),
            };
        };
        let directory = local::open_to_read(folder)?;
        let keys = match &keys.family {
            _ if keys.transactional => directory.transactional(folder)?,
            Some(name) => local::Keys::Of(local::family(&directory.db, folder, name)?),
            None => local::Keys::Of(kontiki_engine::Family::DEFAULT),
        };
        Ok(Source::Directory(directory, keys))
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Failure> {
        match self {
            Source::Directory(directory, keys) => directory.get(*keys, key),
            Source::Node(endpoint, transactional) => block_on(endpoint.get(*transactional, key.to_vec())),
        }
    }

    /// Passes entries to `take`, one by one as they are read.
    pub fn scan(&self, wanted: &Wanted, take: Take<'_>) -> Result<(), Failure> {
        match self {
            Source::Directory(directory, keys) => directory.scan(*keys, wanted, take),
            Source::Node(endpoint, transactional) => block_on(endpoint.scan(*transactional, wanted, take)),
        }
    }
}
