//! The replicas of a store, by region.
//!
//! A replica is some KiB, and regions are made in ascending order, which leaves the nodes of a tree map half empty:
//! with the replicas in them, each would take nearly twice its size. So they are apart.

use crate::peer::Peer;
use crate::region::RegionId;
use std::collections::{BTreeMap, btree_map};
use std::iter::Map;
use std::ops::Index;

/// See the head of this file.
#[derive(Default)]
pub(super) struct Peers(BTreeMap<RegionId, Box<Peer>>);

type Entry<'a> = (&'a RegionId, &'a Box<Peer>);
type EntryMut<'a> = (&'a RegionId, &'a mut Box<Peer>);
type Pair<'a> = (&'a RegionId, &'a Peer);
type PairMut<'a> = (&'a RegionId, &'a mut Peer);

impl Peers {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn contains_key(&self, id: &RegionId) -> bool {
        self.0.contains_key(id)
    }

    pub fn get(&self, id: &RegionId) -> Option<&Peer> {
        self.0.get(id).map(|peer| &**peer)
    }

    pub fn get_mut(&mut self, id: &RegionId) -> Option<&mut Peer> {
        self.0.get_mut(id).map(|peer| &mut **peer)
    }

    pub fn values(&self) -> impl Iterator<Item = &Peer> {
        self.0.values().map(|peer| &**peer)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.0.values_mut().map(|peer| &mut **peer)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = PairMut<'_>> {
        self.into_iter()
    }

    #[cfg(test)]
    pub fn keys(&self) -> impl Iterator<Item = &RegionId> {
        self.0.keys()
    }

    /// Adds a replica; returns whether the region had none.
    pub fn insert(&mut self, id: RegionId, peer: Peer) -> bool {
        self.0.insert(id, Box::new(peer)).is_none()
    }

    pub fn remove(&mut self, id: &RegionId) -> Option<Box<Peer>> {
        self.0.remove(id)
    }
}

impl Index<&RegionId> for Peers {
    type Output = Peer;

    fn index(&self, id: &RegionId) -> &Peer {
        &self.0[id]
    }
}

impl<'a> IntoIterator for &'a Peers {
    type Item = Pair<'a>;
    type IntoIter = Map<btree_map::Iter<'a, RegionId, Box<Peer>>, fn(Entry<'a>) -> Pair<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(id, peer)| (id, &**peer))
    }
}

impl<'a> IntoIterator for &'a mut Peers {
    type Item = PairMut<'a>;
    type IntoIter = Map<btree_map::IterMut<'a, RegionId, Box<Peer>>, fn(EntryMut<'a>) -> PairMut<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter_mut().map(|(id, peer)| (id, &mut **peer))
    }
}
