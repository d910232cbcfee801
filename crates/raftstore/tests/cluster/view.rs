//! A database that is a map.

use bytes::Bytes;
use kontiki_engine::{BatchOp, Direction, Entries, Family, Range, Result, View, WriteBatch};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All families' entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(pub Arc<BTreeMap<(u32, Vec<u8>), Bytes>>);

impl Table {
    pub fn write(&mut self, batch: &WriteBatch) {
        let map = Arc::make_mut(&mut self.0);
        for op in batch.ops() {
            match op {
                BatchOp::Put { family, key, value } => {
                    map.insert((family.0, key.to_vec()), Bytes::copy_from_slice(value));
                }
                BatchOp::Delete { family, key } => {
                    map.remove(&(family.0, key.to_vec()));
                }
                BatchOp::DeleteRange { family, start, end } => {
                    let within = |key: &[u8]| start <= key && (end.is_empty() || key < end);
                    map.retain(|(of, key), _| *of != family.0 || !within(key));
                }
                other => panic!("this model does not know {other:?}"),
            }
        }
    }
}

impl View for Table {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(&(family.0, key.to_vec())).cloned())
    }

    fn entries(&self, family: Family, range: Range, direction: Direction) -> Result<Box<dyn Entries>> {
        let own = self.0.iter().filter(|((f, key), _)| *f == family.0 && range.contains(key));
        let mut found: Vec<_> = own.map(|((_, key), value)| (Bytes::copy_from_slice(key), value.clone())).collect();
        if direction == Direction::Backward {
            found.reverse();
        }
        Ok(Box::new(Found { entries: found, direction, at: 0 }))
    }
}

struct Found {
    entries: Vec<(Bytes, Bytes)>,
    direction: Direction,
    at: usize,
}

impl Iterator for Found {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.at += 1;
        self.entries.get(self.at - 1).cloned().map(Ok)
    }
}

impl Entries for Found {
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let beyond = |entry: &(Bytes, Bytes)| match self.direction {
            Direction::Forward => entry.0.as_ref() >= key,
            Direction::Backward => entry.0.as_ref() <= key,
        };
        self.at = self.entries.iter().position(beyond).unwrap_or(self.entries.len());
        Ok(())
    }
}
