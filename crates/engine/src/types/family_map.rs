//! Ordered maps by family whose copies share their memory.
//!
//! Thousands of families are created one by one, each with a new version and new options, and a copy of the whole map
//! for each would cost the square of their number. The entries are in chunks: a copy copies a pointer for each chunk,
//! and a change after it one chunk. A map that shares nothing is changed in place.

use crate::Family;
use std::sync::Arc;

/// A full chunk is halved: what a change copies, against the pointers that a copy of the map copies.
const CHUNK_MAX: usize = 64;

type Chunk<V> = Arc<Vec<(Family, V)>>;

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct FamilyMap<V> {
    /// Ascending; none is empty.
    chunks: Vec<Chunk<V>>,
    len: usize,
}

impl<V> Default for FamilyMap<V> {
    fn default() -> FamilyMap<V> {
        FamilyMap { chunks: Vec::new(), len: 0 }
    }
}

impl<V> FamilyMap<V> {
    /// The chunk that has a family or would have it, and its place there.
    fn find(&self, family: Family) -> (usize, Result<usize, usize>) {
        let behind = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|(first, _)| *first <= family));
        let chunk = behind.saturating_sub(1);
        let at =
            self.chunks.get(chunk).map_or(Err(0), |chunk| chunk.binary_search_by_key(&family, |(family, _)| *family));
        (chunk, at)
    }

    /// What a family has.
    pub fn get(&self, family: Family) -> Option<&V> {
        let (chunk, at) = self.find(family);
        self.chunks.get(chunk)?.get(at.ok()?).map(|(_, value)| value)
    }

    /// Whether there is such a family.
    pub fn contains_key(&self, family: Family) -> bool {
        self.get(family).is_some()
    }

    /// The entries in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Family, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(family, value)| (*family, value))
    }

    /// The numbers in order.
    pub fn keys(&self) -> impl Iterator<Item = Family> {
        self.iter().map(|(family, _)| family)
    }

    /// What the families have, in the order of their numbers.
    #[cfg(test)]
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl<V: Clone> FamilyMap<V> {
    /// To change what a family has.
    pub(crate) fn get_mut(&mut self, family: Family) -> Option<&mut V> {
        let (chunk, at) = self.find(family);
        let at = at.ok()?;
        Arc::make_mut(self.chunks.get_mut(chunk)?).get_mut(at).map(|(_, value)| value)
    }

    /// Sets what a family has; returns what it had.
    pub(crate) fn insert(&mut self, family: Family, value: V) -> Option<V> {
        let (chunk, at) = self.find(family);
        let Some(entries) = self.chunks.get_mut(chunk) else {
            self.chunks.push(Arc::new(vec![(family, value)]));
            self.len += 1;
            return None;
        };
        let entries = Arc::make_mut(entries);
        match at {
            Ok(at) => entries.get_mut(at).map(|(_, there)| std::mem::replace(there, value)),
            Err(at) => {
                entries.insert(at, (family, value));
                self.len += 1;
                if entries.len() > CHUNK_MAX {
                    // Families mostly come in ascending order: then chunks stay full.
                    let half = if at + 1 == entries.len() { at } else { entries.len() / 2 };
                    let behind = entries.split_off(half);
                    self.chunks.insert(chunk + 1, Arc::new(behind));
                }
                None
            }
        }
    }

    /// Removes a family; returns what it had.
    pub(crate) fn remove(&mut self, family: Family) -> Option<V> {
        let (chunk, at) = self.find(family);
        let at = at.ok()?;
        let entries = Arc::make_mut(self.chunks.get_mut(chunk)?);
        let (_, value) = entries.remove(at);
        if entries.is_empty() {
            self.chunks.remove(chunk);
        }
        self.len -= 1;
        Some(value)
    }
}

impl<V: Clone> FromIterator<(Family, V)> for FamilyMap<V> {
    fn from_iter<I: IntoIterator<Item = (Family, V)>>(entries: I) -> FamilyMap<V> {
        let mut map = FamilyMap::default();
        for (family, value) in entries {
            map.insert(family, value);
        }
        map
    }
}

#[cfg(test)]
#[path = "family_map_test.rs"]
mod tests;
