//! A view over a map, for tests.

use bytes::Bytes;
use kontiki_engine::{BatchOp, Direction, Entries, Family, Range, Result, View, WriteBatch};
use std::collections::BTreeMap;

/// The column family as a map.
#[derive(Clone, Debug, Default)]
pub struct MapView(pub BTreeMap<Vec<u8>, Bytes>);

impl MapView {
    /// What a replica does with a batch.
    pub fn apply(&mut self, batch: &WriteBatch) {
        for op in batch.ops() {
            match op {
                BatchOp::Put { family, key, value } => {
                    assert_eq!(family, crate::FAMILY, "placement writes to no other family");
                    self.0.insert(key.to_vec(), Bytes::copy_from_slice(value));
                }
                other => panic!("placement only puts, but here is {other:?}"),
            }
        }
    }
}

struct ListEntries(std::vec::IntoIter<(Bytes, Bytes)>);

impl Iterator for ListEntries {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Ok)
    }
}

impl Entries for ListEntries {
    fn seek(&mut self, _: &[u8]) -> Result<()> {
        unreachable!("placement reads its state once, in order")
    }
}

impl View for MapView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        assert_eq!(family, crate::FAMILY);
        Ok(self.0.get(key).cloned())
    }

    fn entries(&self, family: Family, range: Range, direction: Direction) -> Result<Box<dyn Entries>> {
        assert_eq!((family, direction), (crate::FAMILY, Direction::Forward));
        let list = self.0.iter().map(|(k, v)| (Bytes::copy_from_slice(k), v.clone()));
        let list: Vec<_> = list.filter(|(k, _)| range.contains(k)).collect();
        Ok(Box::new(ListEntries(list.into_iter())))
    }
}
