//! A view that is a map, and a table of families, for unit tests.

pub mod families;

use bytes::Bytes;
use kontiki_engine::{BatchOp, Direction, Entries, Family, Range, Result, View, WriteBatch};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapView(pub BTreeMap<(u32, Vec<u8>), Bytes>);

impl MapView {
    pub fn write(&mut self, batch: &WriteBatch) {
        for op in batch.ops() {
            match op {
                BatchOp::Put { family, key, value } => {
                    self.0.insert((family.0, key.to_vec()), Bytes::copy_from_slice(value));
                }
                BatchOp::Delete { family, key } => {
                    self.0.remove(&(family.0, key.to_vec()));
                }
                other => panic!("this model does not know {other:?}"),
            }
        }
    }
}

impl View for MapView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(&(family.0, key.to_vec())).cloned())
    }

    fn entries(&self, family: Family, range: Range, direction: Direction) -> Result<Box<dyn Entries>> {
        assert_eq!(direction, Direction::Forward, "nothing here iterates backward");
        let own = self.0.iter().filter(|((f, key), _)| *f == family.0 && range.contains(key));
        let found: Vec<_> = own.map(|((_, key), value)| (Bytes::copy_from_slice(key), value.clone())).collect();
        Ok(Box::new(Found(found.into_iter())))
    }
}

struct Found(std::vec::IntoIter<(Bytes, Bytes)>);

impl Iterator for Found {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Ok)
    }
}

impl Entries for Found {
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let rest: Vec<_> = self.0.by_ref().filter(|entry| entry.0.as_ref() >= key).collect();
        self.0 = rest.into_iter();
        Ok(())
    }
}
