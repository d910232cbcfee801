//! A view that is a map, a table of families and a region, for unit tests.

pub mod families;

use crate::region::{Epoch, Peer, PeerId, Region, RegionId, Space, StoreId};
use bytes::Bytes;
use kontiki_engine::{BatchOp, Direction, Entries, Family, Range, Result, View, WriteBatch};
use std::collections::BTreeMap;

/// Region 3, from `b` to `x`, on one store.
pub fn region(space: Space) -> Region {
    Region {
        id: RegionId(3),
        start_key: Bytes::from_static(b"b"),
        end_key: Bytes::from_static(b"x"),
        epoch: Epoch { conf_version: 1, version: 2 },
        peers: vec![Peer { id: PeerId(31), store: StoreId(1) }],
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space,
    }
}

/// Region 2, of all keys, with voters 1 to 3 on stores 11 to 13.
pub fn region_of_three() -> Region {
    Region {
        id: RegionId(2),
        start_key: Bytes::new(),
        end_key: Bytes::new(),
        epoch: Epoch { conf_version: 1, version: 1 },
        peers: (1..=3).map(|id| Peer { id: PeerId(id), store: StoreId(10 + id) }).collect(),
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    }
}

/// Puts keys in the region, at its ends and beside it, in every family that a space owns.
pub fn put_keys_around(batch: &mut WriteBatch) {
    for family in families::DATA_FAMILIES.into_iter().chain([families::PLACEMENT]) {
        for key in ["a", "b", "c", "w", "x", "z"] {
            batch.put(family, key.as_bytes(), format!("{family:?}{key}").as_bytes());
        }
    }
}

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
                BatchOp::DeleteRange { family, start, end } => {
                    let range = Range::region(start, end);
                    self.0.retain(|(own, key), _| *own != family.0 || !range.contains(key));
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
